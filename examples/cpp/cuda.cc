// Runs a library of secateur for CUDA without Python, TVM or NVIDIA's toolkit: the GPU's driver is all it needs.
//
//   cuda LIBRARY INPUT.bin... [--output FOLDER]
//
// Inputs and outputs are those of gpu.cc. The library holds machine code (kernels.cubin).
// Build it with: g++ -std=c++17 -O2 cuda.cc -o cuda -ldl

#include <dlfcn.h>

#include "gpu_library.h"

class Cuda : public Device {
 public:
  void Load(const Json& target, Archive& archive) override {
    driver_ = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver_) throw std::runtime_error("this machine lacks NVIDIA's driver (libcuda.so.1)");
    Call("cuInit", 0u);
    void* context = nullptr;
    Call("cuDevicePrimaryCtxRetain", &context, Find(target["mcpu"].text));
    Call("cuCtxSetCurrent", context);
    std::string code = archive.Read("kernels.cubin");
    Call("cuModuleLoadData", &module_, static_cast<const void*>(code.data()));
  }

  void Memory(const std::string& name, const std::string* filled, size_t bytes) override {
    Address& at = memories_[name];
    Call("cuMemAlloc_v2", &at, std::max<size_t>(bytes, 4));
    if (filled && bytes) Call("cuMemcpyHtoD_v2", at, static_cast<const void*>(filled->data()), bytes);
  }

  void Launch(const Json& launch, const Json& shape) override {
    void* kernel = nullptr;
    Call("cuModuleGetFunction", &kernel, module_, launch[0].text.c_str());
    size_t count = launch[1].size();
    std::vector<int> first(count);
    std::vector<void*> arguments(2 * count);
    for (size_t k = 0; k < count; ++k) {
      first[k] = static_cast<int>(launch[1][k][1].number());
      arguments[k] = &memories_.at(launch[1][k][0].text);
      arguments[count + k] = &first[k];
    }
    auto size = [&](size_t axis) { return static_cast<unsigned>(shape[axis].number()); };
    Call("cuLaunchKernel", kernel, size(0), size(1), size(2), size(3), 1u, 1u, 0u, static_cast<void*>(nullptr),
         arguments.data(), static_cast<void**>(nullptr));
  }

  std::string Read(const std::string& name, size_t bytes) override {
    std::string found(bytes, 0);
    Call("cuMemcpyDtoH_v2", static_cast<void*>(found.data()), memories_.at(name), bytes);
    return found;
  }

 private:
  using Address = unsigned long long;

  // The functions' types are those of the arguments, as <cuda.h> has them.
  template <class... Arguments>
  void Call(const char* name, Arguments... arguments) {
    auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(driver_, name));
    if (!function) throw std::runtime_error(std::string("the driver of this machine is too old: it has no ") + name);
    if (int status = function(arguments...))
      throw std::runtime_error("the GPU cannot run the library: " + std::string(name) + " says '" + Words(status) +
                               "'");
  }

  // What the driver says of an error.
  std::string Words(int status) {
    const char* text = nullptr;
    auto words = reinterpret_cast<int (*)(int, const char**)>(dlsym(driver_, "cuGetErrorString"));
    if (words) words(status, &text);
    return text ? std::string(text) : "error " + std::to_string(status);
  }

  // The first GPU for code such as sm_87: of the same major version, and no older.
  int Find(const std::string& arch) {
    int count = 0, wanted = std::stoi(arch.substr(3));
    Call("cuDeviceGetCount", &count);
    for (int device = 0; device < count; ++device) {
      int major = 0, minor = 0;
      Call("cuDeviceGetAttribute", &major, 75, device);  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
      Call("cuDeviceGetAttribute", &minor, 76, device);
      if (major == wanted / 10 && minor >= wanted % 10) return device;
    }
    throw std::runtime_error("this machine lacks a GPU that runs code for " + arch);
  }

  void* driver_ = nullptr;
  void* module_ = nullptr;
  std::map<std::string, Address> memories_;
};

int main(int argc, char** argv) {
  Cuda device;
  return Main(argc, argv, device, "cuda");
}
