// Runs a library of secateur without Python: TVM's runtime is all it needs.
//
//   run LIBRARY.so INPUT.bin... [--output FOLDER] [--repeats N]
//
// Each INPUT.bin holds one input as raw numbers, in the order in which the library lists its inputs. Outputs are written
// to FOLDER/output0.bin and so on. A library is a ZIP archive without compression; metadata.json says what is in it.

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read '" + path + "'");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

uint32_t Number(const std::string& bytes, size_t at, int width) {
  uint32_t value = 0;
  for (int i = width; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes.at(at + i));
  return value;
}

// The members of a ZIP archive, all of them stored as they are, found through its central directory.
std::map<std::string, std::string> Unpack(const std::string& zip) {
  size_t end = zip.rfind("PK\x05\x06");
  if (end == std::string::npos) throw std::runtime_error("the library is damaged: it has no ZIP directory");
  std::map<std::string, std::string> members;
  size_t at = Number(zip, end + 16, 4);
  for (uint32_t i = 0; i < Number(zip, end + 10, 2); ++i) {
    if (zip.compare(at, 4, "PK\x01\x02") != 0 || Number(zip, at + 10, 2) != 0)
      throw std::runtime_error("the library is damaged, or was compressed");
    uint32_t size = Number(zip, at + 20, 4), name = Number(zip, at + 28, 2), local = Number(zip, at + 42, 4);
    size_t data = local + 30 + Number(zip, local + 26, 2) + Number(zip, local + 28, 2);
    members[zip.substr(at + 46, name)] = zip.substr(data, size);
    at += 46 + name + Number(zip, at + 30, 2) + Number(zip, at + 32, 2);
  }
  return members;
}

// Memory that begins at a cache line.
struct Block {
  explicit Block(size_t bytes) : data(std::aligned_alloc(64, (bytes + 64) / 64 * 64), std::free) {
    std::memset(data.get(), 0, bytes);
  }
  std::unique_ptr<void, void (*)(void*)> data;
};

// A tensor over such a block.
struct Array {
  Array(std::vector<int64_t> dims, DLDataType type) : shape(std::move(dims)), dtype(type), block(Bytes()) {
    int64_t step = 1;
    strides.resize(shape.size());
    for (size_t i = shape.size(); i-- > 0;) {
      strides[i] = step;
      step *= shape[i];
    }
    tensor = {block.data.get(), {kDLCPU, 0}, static_cast<int32_t>(shape.size()), dtype, shape.data(), strides.data(), 0};
  }
  size_t Bytes() const {
    size_t count = (dtype.bits + 7) / 8;
    for (int64_t d : shape) count *= d;
    return count;
  }
  void Fill(const std::string& bytes, const std::string& what) {
    if (bytes.size() != Bytes())
      throw std::runtime_error(what + " has " + std::to_string(bytes.size()) + " bytes, the library takes " +
                               std::to_string(Bytes()));
    std::memcpy(block.data.get(), bytes.data(), bytes.size());
  }
  std::vector<int64_t> shape, strides;
  DLDataType dtype;
  Block block;
  DLTensor tensor;
};

DLDataType TypeOf(const std::string& name) {
  static const std::map<std::string, DLDataType> types = {
      {"f32", {kDLFloat, 32, 1}}, {"f64", {kDLFloat, 64, 1}}, {"f16", {kDLFloat, 16, 1}}, {"i64", {kDLInt, 64, 1}},
      {"i32", {kDLInt, 32, 1}},   {"i8", {kDLInt, 8, 1}},     {"u8", {kDLUInt, 8, 1}},    {"b1", {kDLBool, 8, 1}}};
  auto found = types.find(name);
  if (found == types.end()) throw std::runtime_error("element type " + name + " is not known to this program");
  return found->second;
}

std::vector<std::unique_ptr<Array>> Ports(const ffi::json::Array& rows) {
  std::vector<std::unique_ptr<Array>> arrays;
  for (const auto& row : rows) {
    auto port = row.cast<ffi::json::Array>();
    std::vector<int64_t> shape;
    for (const auto& dim : port[1].cast<ffi::json::Array>()) shape.push_back(dim.cast<int64_t>());
    arrays.push_back(std::make_unique<Array>(shape, TypeOf(std::string(port[2].cast<ffi::String>()))));
  }
  return arrays;
}

// The code has to be a file of its own to be loaded; it may go at once.
ffi::Module Load(const std::string& code) {
  char path[] = "/tmp/secateur-XXXXXX.so";
  int handle = mkstemps(path, 3);
  if (handle < 0 || write(handle, code.data(), code.size()) != static_cast<ssize_t>(code.size()))
    throw std::runtime_error("cannot write to /tmp");
  close(handle);
  ffi::Module module = ffi::Module::LoadFromFile(path);
  unlink(path);
  return module;
}

int Run(int argc, char** argv) {
  std::vector<std::string> files;
  std::string folder;
  int repeats = 1;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--output" && i + 1 < argc) folder = argv[++i];
    else if (word == "--repeats" && i + 1 < argc) repeats = std::atoi(argv[++i]);
    else files.push_back(word);
  }
  if (files.empty()) throw std::runtime_error("usage: run LIBRARY.so INPUT.bin... [--output FOLDER] [--repeats N]");
  auto members = Unpack(ReadFile(files[0]));
  auto metadata = ffi::json::Parse(members.at("metadata.json")).cast<ffi::json::Object>();
  auto inputs = Ports(metadata["inputs"].cast<ffi::json::Array>());
  auto outputs = Ports(metadata["outputs"].cast<ffi::json::Array>());
  if (files.size() != inputs.size() + 1)
    throw std::runtime_error("the library takes " + std::to_string(inputs.size()) + " inputs");
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i]->Fill(ReadFile(files[i + 1]), files[i + 1]);

  const DLDataType words{kDLFloat, 32, 1}, numbers{kDLInt, 32, 1};
  Array arena({metadata["arena_words"].cast<int64_t>()}, words);
  Array weights({static_cast<int64_t>(members.at("weights.bin").size() / 4)}, words);
  Array tables({static_cast<int64_t>(members.at("tables.bin").size() / 4)}, numbers);
  weights.Fill(members.at("weights.bin"), "weights.bin");
  tables.Fill(members.at("tables.bin"), "tables.bin");

  ffi::Module module = Load(members.at("code.so"));
  ffi::Function function = module->GetFunction("main").value();
  std::vector<ffi::AnyView> arguments = {&arena.tensor, &weights.tensor, &tables.tensor};
  for (auto& array : inputs) arguments.push_back(&array->tensor);
  for (auto& array : outputs) arguments.push_back(&array->tensor);
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    auto start = std::chrono::steady_clock::now();
    ffi::Any nothing;
    function.CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &nothing);
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::cout << "ran " << repeats << " times, the fastest took " << best << " ms\n";
  for (size_t i = 0; !folder.empty() && i < outputs.size(); ++i) {
    std::string path = folder + "/output" + std::to_string(i) + ".bin";
    std::ofstream file(path, std::ios::binary);
    if (!file.write(static_cast<const char*>(outputs[i]->block.data.get()), outputs[i]->Bytes()))
      throw std::runtime_error("cannot write '" + path + "'");
  }
  return 0;
}

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "run: " << error.what() << "\n";
    return 2;
  }
}
