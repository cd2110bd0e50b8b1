// Runs a library of secateur without Python: TVM's runtime is all it needs.
//
//   run LIBRARY.so INPUT.bin... [--output FOLDER] [--repeats N]
//
// Each INPUT.bin holds one input as raw numbers, in the order in which the library lists its inputs. Outputs are written
// to FOLDER/output0.bin and so on. A library is a ZIP archive without compression; metadata.json says what is in it.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#include <unistd.h>

#include <algorithm>
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
#include <thread>
#include <utility>
#include <vector>

#include "archive.h"

namespace ffi = tvm::ffi;

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
  void Fill(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error("cannot read '" + path + "'");
    if (static_cast<size_t>(file.tellg()) != Bytes())
      throw std::runtime_error(path + " has " + std::to_string(file.tellg()) + " bytes, the library takes " +
                               std::to_string(Bytes()));
    file.seekg(0);
    file.read(static_cast<char*>(block.data.get()), Bytes());
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

#if defined(__aarch64__)
const std::string kArchitecture = "aarch64";
#else
const std::string kArchitecture = "x86_64";
#endif

// What this processor has, in the words of /proc/cpuinfo. On ARM the kernel is asked: an emulated process reads in that
// file of the host's processor.
std::string Features() {
#if defined(__aarch64__) && defined(__linux__)
  static const char* names[] = {"fp",      "asimd",    "evtstrm", "aes",  "pmull",  "sha1",  "sha2", "crc32",
                                "atomics", "fphp",     "asimdhp", "cpuid", "asimdrdm", "jscvt", "fcma", "lrcpc",
                                "dcpop",   "sha3",     "sm3",     "sm4",  "asimddp", "sha512", "sve"};
  std::string have = " ";
  for (size_t bit = 0; bit < std::size(names); ++bit)
    if (getauxval(AT_HWCAP) >> bit & 1) have += std::string(names[bit]) + " ";
  return have;
#elif defined(__aarch64__) && defined(__APPLE__)
  return " asimd asimddp asimdrdm atomics fphp lrcpc ";  // since the M1
#else
  std::ifstream info("/proc/cpuinfo");
  std::string line, have;
  while (std::getline(info, line))
    if (line.rfind("flags", 0) == 0) have = line.substr(line.find(':') + 1) + " ";
  return have;
#endif
}

// Code for another processor, or for vectors that this one has not, would end the program: ask first.
void CheckMachine(const ffi::json::Object& target) {
  std::string triple(target["triple"].cast<ffi::String>()), have = Features(), lacking;
  if (triple.compare(0, kArchitecture.size(), kArchitecture) != 0)
    lacking = "an " + triple.substr(0, triple.find('-')) + " processor";
  for (const auto& feature : target["features"].cast<ffi::json::Array>()) {
    std::string name(feature.cast<ffi::String>());
    if (lacking.empty() && have.find(" " + name + " ") == std::string::npos) lacking = name;
  }
  if (!lacking.empty())
    throw std::runtime_error("the library was built for " + std::string(target["name"].cast<ffi::String>()) +
                             "; this machine lacks " + lacking);
}

// Left to itself, TVM takes half of the cores on x86 and binds the caller to them.
void UseThreads(int64_t threads) {
  if (threads < 2) return;
  ffi::Array<ffi::String> cores;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) cores.push_back(std::to_string(i));
  const int share_cores = -3;
  ffi::Function::GetGlobalRequired("runtime.config_threadpool")(share_cores, threads, cores);
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
  Archive members(files[0]);
  auto metadata = ffi::json::Parse(members.Read("metadata.json")).cast<ffi::json::Object>();
  CheckMachine(metadata["target"].cast<ffi::json::Object>());
  UseThreads(metadata["threads"].cast<int64_t>());
  auto inputs = Ports(metadata["inputs"].cast<ffi::json::Array>());
  auto outputs = Ports(metadata["outputs"].cast<ffi::json::Array>());
  if (files.size() != inputs.size() + 1)
    throw std::runtime_error("the library takes " + std::to_string(inputs.size()) + " inputs");
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i]->Fill(files[i + 1]);

  const DLDataType words{kDLFloat, 32, 1}, numbers{kDLInt, 32, 1};
  Array arena({metadata["arena_words"].cast<int64_t>()}, words);
  Array weights({static_cast<int64_t>(members.Size("weights.bin") / 4)}, words);
  Array tables({static_cast<int64_t>(members.Size("tables.bin") / 4)}, numbers);
  members.Read("weights.bin", weights.block.data.get());
  members.Read("tables.bin", tables.block.data.get());

  ffi::Module module = Load(members.Read("code.so"));
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
