// The file of a library: a ZIP archive whose members are stored as they are.

#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

inline uint32_t Number(const std::string& bytes, size_t at, int width) {
  uint32_t value = 0;
  for (int i = width; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes.at(at + i));
  return value;
}

// The members of a ZIP archive, all of them stored as they are, found through its central directory.
class Archive {
 public:
  explicit Archive(const std::string& path) : file_(path, std::ios::binary) {
    if (!file_) throw std::runtime_error("cannot read '" + path + "'");
    file_.seekg(0, std::ios::end);
    size_t size = file_.tellg(), tail = std::min<size_t>(size, 65557);
    std::string last = Bytes(size - tail, tail);
    size_t end = last.rfind("PK\x05\x06");
    if (end == std::string::npos) throw std::runtime_error("the library is damaged: it has no ZIP directory");
    std::string list = Bytes(Number(last, end + 16, 4), Number(last, end + 12, 4));
    size_t at = 0;
    for (uint32_t i = 0; i < Number(last, end + 10, 2); ++i) {
      if (list.compare(at, 4, "PK\x01\x02") != 0 || Number(list, at + 10, 2) != 0)
        throw std::runtime_error("the library is damaged, or was compressed");
      size_t name = Number(list, at + 28, 2), local = Number(list, at + 42, 4);
      std::string head = Bytes(local, 30);
      members_[list.substr(at + 46, name)] = {local + 30 + Number(head, 26, 2) + Number(head, 28, 2),
                                              Number(list, at + 20, 4)};
      at += 46 + name + Number(list, at + 30, 2) + Number(list, at + 32, 2);
    }
  }
  size_t Size(const std::string& name) const { return members_.at(name).second; }
  void Read(const std::string& name, void* to) { Bytes(members_.at(name).first, Size(name), static_cast<char*>(to)); }
  std::string Read(const std::string& name) { return Bytes(members_.at(name).first, Size(name)); }

 private:
  std::string Bytes(size_t at, size_t size) {
    std::string bytes(size, 0);
    Bytes(at, size, bytes.data());
    return bytes;
  }
  void Bytes(size_t at, size_t size, char* to) {
    file_.seekg(at);
    if (!file_.read(to, size)) throw std::runtime_error("the library is damaged: it ends too early");
  }
  std::ifstream file_;
  std::map<std::string, std::pair<size_t, size_t>> members_;  // where each begins, and its bytes
};
