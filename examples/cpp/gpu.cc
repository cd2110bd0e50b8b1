// Runs a library of secateur for OpenCL without Python and without TVM: an OpenCL driver is all it needs.
//
//   gpu LIBRARY INPUT.bin... [--output FOLDER]
//
// Each INPUT.bin holds one input as raw numbers, in the order in which the library lists its inputs. Outputs are written
// to FOLDER/output0.bin and so on. The library holds the text of its kernels (kernels.cl).
// Build it with: g++ -std=c++17 -O2 gpu.cc -o gpu -lOpenCL (Debian: ocl-icd-opencl-dev)

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "gpu_library.h"

void Check(cl_int status, const std::string& what) {
  if (status != CL_SUCCESS) throw std::runtime_error(what + " failed with OpenCL's error " + std::to_string(status));
}

class OpenCl : public Device {
 public:
  void Load(const Json&, Archive& archive) override {
    cl_device_id device = Find();
    cl_int status;
    context_ = clCreateContext(nullptr, 1, &device, nullptr, nullptr, &status);
    Check(status, "making a context");
    queue_ = clCreateCommandQueue(context_, device, 0, &status);
    Check(status, "making a queue");
    std::string source = archive.Read("kernels.cl");
    const char* text = source.c_str();
    program_ = clCreateProgramWithSource(context_, 1, &text, nullptr, &status);
    Check(status, "reading the kernels");
    Check(clBuildProgram(program_, 1, &device, "-cl-std=CL1.2", nullptr, nullptr), "compiling the kernels");
  }

  void Memory(const std::string& name, const std::string* filled, size_t bytes) override {
    cl_mem_flags flags = CL_MEM_READ_WRITE | (filled ? CL_MEM_COPY_HOST_PTR : 0);
    void* from = filled ? const_cast<char*>(filled->data()) : nullptr;
    cl_int status;
    memories_[name] = clCreateBuffer(context_, flags, std::max<size_t>(bytes, 4), from, &status);
    Check(status, "making room for " + name);
  }

  void Launch(const Json& launch, const Json& shape) override {
    cl_int status;
    cl_kernel kernel = clCreateKernel(program_, launch[0].text.c_str(), &status);
    Check(status, "finding kernel " + launch[0].text);
    size_t count = launch[1].size();
    for (size_t k = 0; k < count; ++k) {
      cl_int first = static_cast<cl_int>(launch[1][k][1].number());
      Check(clSetKernelArg(kernel, k, sizeof(cl_mem), &memories_.at(launch[1][k][0].text)), "passing a memory");
      Check(clSetKernelArg(kernel, count + k, sizeof first, &first), "passing an offset");
    }
    size_t items[3] = {shape[3].number(), 1, 1}, all[3];
    for (int axis = 0; axis < 3; ++axis) all[axis] = shape[axis].number() * items[axis];
    Check(clEnqueueNDRangeKernel(queue_, kernel, 3, nullptr, all, items, 0, nullptr, nullptr),
          "launching " + launch[0].text);
    clReleaseKernel(kernel);
  }

  std::string Read(const std::string& name, size_t bytes) override {
    std::string found(bytes, 0);
    Check(clEnqueueReadBuffer(queue_, memories_.at(name), CL_TRUE, 0, bytes, found.data(), 0, nullptr, nullptr),
          "reading an output");
    return found;
  }

 private:
  // The first GPU, or else the first device.
  static cl_device_id Find() {
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

  cl_context context_ = nullptr;
  cl_command_queue queue_ = nullptr;
  cl_program program_ = nullptr;
  std::map<std::string, cl_mem> memories_;
};

int main(int argc, char** argv) {
  OpenCl device;
  return Main(argc, argv, device, "opencl");
}
