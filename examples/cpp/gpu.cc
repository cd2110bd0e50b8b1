// Runs a library of secateur for OpenCL without Python and without TVM: an OpenCL driver is all it needs.
//
//   gpu LIBRARY INPUT.bin... [--output FOLDER]
//
// Each INPUT.bin holds one input as raw numbers, in the order in which the library lists its inputs. Outputs are written
// to FOLDER/output0.bin and so on. The library holds the text of its kernels (kernels.cl), and launches.json says in what
// order they are launched: for each operand the memory, and the first element in it.
// Build it with: g++ -std=c++17 -O2 gpu.cc -o gpu -lOpenCL (Debian: ocl-icd-opencl-dev)

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include <cctype>
#include <cstring>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <vector>

#include "archive.h"

// JSON as secateur writes it: objects, arrays, numbers and text.
struct Json {
  std::vector<std::pair<std::string, Json>> members;  // of an array without names
  std::string text;
  const Json& operator[](const std::string& name) const {
    for (const auto& member : members)
      if (member.first == name) return member.second;
    throw std::runtime_error("the library is damaged: it has no '" + name + "'");
  }
  const Json& operator[](size_t i) const { return members.at(i).second; }
  size_t size() const { return members.size(); }
  size_t number() const { return std::stoull(text); }
};

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}
  Json Value() {
    Json json;
    char first = Next();
    if (first == '"') {
      json.text = Text();
    } else if (first == '{' || first == '[') {
      ++at_;
      for (char end = first == '{' ? '}' : ']'; Next() != end;) {
        std::string name;
        if (first == '{') {
          name = Text();
          Take(':');
        }
        json.members.emplace_back(name, Value());
        if (Next() != end) Take(',');
      }
      ++at_;
    } else {
      while (at_ < text_.size() && (std::isalnum(text_[at_]) || std::strchr("+-.", text_[at_]))) json.text += text_[at_++];
      if (json.text.empty()) throw std::runtime_error("the library is damaged: this is no JSON");
    }
    return json;
  }

 private:
  char Next() {
    while (std::isspace(static_cast<unsigned char>(text_.at(at_)))) ++at_;
    return text_[at_];
  }
  void Take(char wanted) {
    if (Next() != wanted) throw std::runtime_error("the library is damaged: this is no JSON");
    ++at_;
  }
  std::string Text() {  // escapes are kept as they are: names are compared with themselves alone
    Take('"');
    std::string found;
    while (text_.at(at_) != '"') {
      if (text_[at_] == '\\') found += text_[at_++];
      found += text_.at(at_++);
    }
    ++at_;
    return found;
  }
  const std::string& text_;
  size_t at_ = 0;
};

void Check(cl_int status, const std::string& what) {
  if (status != CL_SUCCESS) throw std::runtime_error(what + " failed with OpenCL's error " + std::to_string(status));
}

// The first GPU, or else the first device.
cl_device_id Device() {
  cl_uint count = 0;
  clGetPlatformIDs(0, nullptr, &count);
  std::vector<cl_platform_id> platforms(count);
  if (count) clGetPlatformIDs(count, platforms.data(), nullptr);
  for (cl_device_type type : {cl_device_type{CL_DEVICE_TYPE_GPU}, cl_device_type{CL_DEVICE_TYPE_ALL}})
    for (cl_platform_id platform : platforms) {
      cl_device_id device;
      if (clGetDeviceIDs(platform, type, 1, &device, nullptr) == CL_SUCCESS) return device;
    }
  throw std::runtime_error("this machine lacks an OpenCL platform with a device: install the driver of its GPU");
}

size_t Bytes(const Json& port) {
  static const std::map<std::string, size_t> sizes = {{"f32", 4}};
  auto size = sizes.find(port[2].text);
  if (size == sizes.end()) throw std::runtime_error("element type " + port[2].text + " is not known to this program");
  size_t bytes = size->second;
  for (size_t i = 0; i < port[1].size(); ++i) bytes *= port[1][i].number();
  return bytes;
}

std::string Contents(const std::string& path, size_t bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read '" + path + "'");
  std::string found((std::istreambuf_iterator<char>(file)), {});
  if (found.size() != bytes)
    throw std::runtime_error(path + " has " + std::to_string(found.size()) + " bytes, the library takes " +
                             std::to_string(bytes));
  return found;
}

int Run(const std::string& library, const std::vector<std::string>& inputs, const std::string& folder) {
  Archive archive(library);
  std::string about = archive.Read("metadata.json");
  Json metadata = Parser(about).Value();
  if (metadata["target"]["triple"].text != "opencl")
    throw std::runtime_error("'" + library + "' was built for " + metadata["target"]["name"].text + ", not for opencl");
  std::string order = archive.Read("launches.json"), source = archive.Read("kernels.cl");
  Json plan = Parser(order).Value();
  if (inputs.size() != metadata["inputs"].size())
    throw std::runtime_error("the library takes " + std::to_string(metadata["inputs"].size()) + " inputs");

  cl_device_id device = Device();
  cl_int status;
  cl_context context = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &status);
  Check(status, "making a context");
  cl_command_queue queue = clCreateCommandQueue(context, device, 0, &status);
  Check(status, "making a queue");
  const char* text = source.c_str();
  cl_program program = clCreateProgramWithSource(context, 1, &text, nullptr, &status);
  Check(status, "reading the kernels");
  Check(clBuildProgram(program, 1, &device, "-cl-std=CL1.2", nullptr, nullptr), "compiling the kernels");

  std::map<std::string, cl_mem> memories;
  auto memory = [&](const std::string& name, const std::string* filled, size_t bytes) {
    cl_mem_flags flags = CL_MEM_READ_WRITE | (filled ? CL_MEM_COPY_HOST_PTR : 0);
    void* from = filled ? const_cast<char*>(filled->data()) : nullptr;
    memories[name] = clCreateBuffer(context, flags, std::max<size_t>(bytes, 4), from, &status);
    Check(status, "making room for " + name);
  };
  memory("arena", nullptr, 4 * plan["arena_words"].number());
  for (const char* name : {"weights", "tables"}) {
    std::string constants = archive.Read(std::string(name) + ".bin");
    memory(name, &constants, constants.size());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::string given = Contents(inputs[i], Bytes(metadata["inputs"][i]));
    memory(plan["inputs"][i].text, &given, given.size());
  }
  for (size_t i = 0; i < plan["outputs"].size(); ++i)
    memory(plan["outputs"][i].text, nullptr, Bytes(metadata["outputs"][i]));

  for (size_t i = 0; i < plan["launches"].size(); ++i) {
    const Json &launch = plan["launches"][i], &shape = plan["kernels"][launch[0].text];
    cl_kernel kernel = clCreateKernel(program, launch[0].text.c_str(), &status);
    Check(status, "finding kernel " + launch[0].text);
    size_t count = launch[1].size();
    for (size_t k = 0; k < count; ++k) {
      cl_int first = static_cast<cl_int>(launch[1][k][1].number());
      Check(clSetKernelArg(kernel, k, sizeof(cl_mem), &memories.at(launch[1][k][0].text)), "passing a memory");
      Check(clSetKernelArg(kernel, count + k, sizeof first, &first), "passing an offset");
    }
    size_t items[3] = {shape[3].number(), 1, 1}, all[3];
    for (int axis = 0; axis < 3; ++axis) all[axis] = shape[axis].number() * items[axis];
    Check(clEnqueueNDRangeKernel(queue, kernel, 3, nullptr, all, items, 0, nullptr, nullptr),
          "launching " + launch[0].text);
    clReleaseKernel(kernel);
  }
  for (size_t i = 0; i < plan["outputs"].size(); ++i) {
    std::string found(Bytes(metadata["outputs"][i]), 0);
    Check(clEnqueueReadBuffer(queue, memories.at(plan["outputs"][i].text), CL_TRUE, 0, found.size(), found.data(), 0,
                              nullptr, nullptr), "reading an output");
    std::ofstream file(folder + "/output" + std::to_string(i) + ".bin", std::ios::binary);
    if (!file.write(found.data(), found.size())) throw std::runtime_error("cannot write to '" + folder + "'");
  }
  return 0;
}

int main(int argc, char** argv) {
  std::vector<std::string> inputs;
  std::string library, folder = ".";
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--output" && i + 1 < argc) folder = argv[++i];
    else if (library.empty()) library = argument;
    else inputs.push_back(argument);
  }
  if (library.empty()) {
    std::cerr << "usage: gpu LIBRARY INPUT.bin... [--output FOLDER]\n";
    return 2;
  }
  try {
    return Run(library, inputs, folder);
  } catch (const std::exception& error) {
    std::cerr << "gpu: " << error.what() << "\n";
    return 1;
  }
}
