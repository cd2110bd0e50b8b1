/* What a library of kernels brings along to be timed on another machine: the clock, what the machine is, and sums.
   Linked into every library that `portable.py` makes, for the processor that is tuned for. It calls nothing that is
   newer than the oldest C library which TVM's own runtime takes, so no sscanf and no dladdr. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include <tvm/ffi/c_api.h>

enum { LINE = 4096 };

/* Nanoseconds of a clock that never goes back. */
int64_t secateur_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static const DLTensor *tensor(const TVMFFIAny *argument) {
  if (argument->type_index == kTVMFFIDLTensorPtr) return argument->v_ptr;
  return (const DLTensor *)((const char *)argument->v_obj + sizeof(TVMFFIObject));
}

static int64_t size_of(const DLTensor *array) {
  int64_t size = 1;
  for (int i = 0; i < array->ndim; i++) size *= array->shape[i];
  return size;
}

static char *data_of(const DLTensor *array) { return (char *)array->data + array->byte_offset; }

/* Append text, and leave room for the zero at its end. */
static void put(char *out, int64_t size, const char *text) {
  int64_t used = strlen(out), more = strlen(text);
  if (more > size - 1 - used) more = size - 1 - used;
  if (more > 0) memcpy(out + used, text, more), out[used + more] = 0;
}

static void put_file(char *out, int64_t size, const char *path) {
  char line[LINE];
  FILE *file = fopen(path, "r");
  if (!file) return;
  while (fgets(line, sizeof line, file)) put(out, size, line);
  fclose(file);
}

/* The folder of TVM's Python package, if the runtime was loaded from one: `path` ends in /lib/libtvm_runtime.so. */
static int find_package(char *path) {
  char line[LINE];
  int found = 0;
  FILE *file = fopen("/proc/self/maps", "r");
  if (!file) return 0;
  while (!found && fgets(line, sizeof line, file)) {
    char *start = strchr(line, '/'), *end = start ? strstr(start, "/lib/libtvm_runtime.so") : 0;
    if (end) *end = 0, strcpy(path, start), found = 1;
  }
  fclose(file);
  return found;
}

/* describe(uint8[n]): the machine's name, its system and architecture, TVM's version file, and /proc/cpuinfo. */
int __tvm_ffi_describe(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result) {
  const DLTensor *array = tensor(args);
  char *out = data_of(array), path[2 * LINE];
  int64_t size = size_of(array);
  struct utsname name;
  out[0] = 0;
  uname(&name);
  put(out, size, "node: "), put(out, size, name.nodename);
  put(out, size, "\nsystem: "), put(out, size, name.sysname);
  put(out, size, "\nmachine: "), put(out, size, name.machine), put(out, size, "\n");
  if (find_package(path)) {
    put(out, size, "[tvm]\n");
    put_file(out, size, strcat(path, "/_version.py"));
  }
  put(out, size, "[cpu]\n");
  put_file(out, size, "/proc/cpuinfo");
  result->type_index = kTVMFFINone;
  return 0;
}

/* spread(room, array, stride): the array again and again, `stride` elements of four bytes from one to the next. */
int __tvm_ffi_spread(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result) {
  const DLTensor *room = tensor(args), *array = tensor(args + 1);
  int64_t stride = args[2].v_int64, size = size_of(array);
  for (int64_t at = 0; at + size <= size_of(room); at += stride)
    memcpy(data_of(room) + 4 * at, data_of(array), 4 * size);
  result->type_index = kTVMFFINone;
  return 0;
}

/* sums(float64[n], array): element i of the array is added to sum i mod n. */
int __tvm_ffi_sums(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result) {
  const DLTensor *sums = tensor(args), *array = tensor(args + 1);
  double *sum = (double *)data_of(sums);
  const float *value = (const float *)data_of(array);
  int64_t many = size_of(sums), size = size_of(array);
  for (int64_t i = 0; i < many; i++) sum[i] = 0;
  for (int64_t i = 0; i < size; i++) sum[i % many] += value[i];
  result->type_index = kTVMFFINone;
  return 0;
}
