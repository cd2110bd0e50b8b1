// What programs share that run a library of secateur for a GPU: its plan, and the steps that all devices have in common.
//
// launches.json says in what order kernels are launched: for each operand the memory, and the first element in it.

#pragma once

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
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

inline size_t Bytes(const Json& port) {
  static const std::map<std::string, size_t> sizes = {{"f32", 4}};
  auto size = sizes.find(port[2].text);
  if (size == sizes.end()) throw std::runtime_error("element type " + port[2].text + " is not known to this program");
  size_t bytes = size->second;
  for (size_t i = 0; i < port[1].size(); ++i) bytes *= port[1][i].number();
  return bytes;
}

inline std::string Contents(const std::string& path, size_t bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read '" + path + "'");
  std::string found((std::istreambuf_iterator<char>(file)), {});
  if (found.size() != bytes)
    throw std::runtime_error(path + " has " + std::to_string(found.size()) + " bytes, the library takes " +
                             std::to_string(bytes));
  return found;
}

// A device in one of the languages of libraries; every method throws std::runtime_error.
class Device {
 public:
  virtual ~Device() = default;
  // Find the device for a target, load the kernels.
  virtual void Load(const Json& target, Archive& archive) = 0;
  // Room under a name, filled or not.
  virtual void Memory(const std::string& name, const std::string* filled, size_t bytes) = 0;
  // One kernel: its name and arguments, and the shape of its grid.
  virtual void Launch(const Json& launch, const Json& shape) = 0;
  // What a memory holds after all launches.
  virtual std::string Read(const std::string& name, size_t bytes) = 0;
};

inline int Run(Device& device, const std::string& triple, const std::string& library,
               const std::vector<std::string>& inputs, const std::string& folder) {
  Archive archive(library);
  std::string about = archive.Read("metadata.json");
  Json metadata = Parser(about).Value();
  if (metadata["target"]["triple"].text != triple)
    throw std::runtime_error("'" + library + "' was built for " + metadata["target"]["name"].text + ", not for " +
                             triple);
  std::string order = archive.Read("launches.json");
  Json plan = Parser(order).Value();
  if (inputs.size() != metadata["inputs"].size())
    throw std::runtime_error("the library takes " + std::to_string(metadata["inputs"].size()) + " inputs");

  device.Load(metadata["target"], archive);
  device.Memory("arena", nullptr, 4 * plan["arena_words"].number());
  for (const char* name : {"weights", "tables"}) {
    std::string constants = archive.Read(std::string(name) + ".bin");
    device.Memory(name, &constants, constants.size());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::string given = Contents(inputs[i], Bytes(metadata["inputs"][i]));
    device.Memory(plan["inputs"][i].text, &given, given.size());
  }
  for (size_t i = 0; i < plan["outputs"].size(); ++i)
    device.Memory(plan["outputs"][i].text, nullptr, Bytes(metadata["outputs"][i]));
  for (size_t i = 0; i < plan["launches"].size(); ++i)
    device.Launch(plan["launches"][i], plan["kernels"][plan["launches"][i][0].text]);
  for (size_t i = 0; i < plan["outputs"].size(); ++i) {
    std::string found = device.Read(plan["outputs"][i].text, Bytes(metadata["outputs"][i]));
    std::ofstream file(folder + "/output" + std::to_string(i) + ".bin", std::ios::binary);
    if (!file.write(found.data(), found.size())) throw std::runtime_error("cannot write to '" + folder + "'");
  }
  return 0;
}

// The command line LIBRARY INPUT.bin... [--output FOLDER].
inline int Main(int argc, char** argv, Device& device, const std::string& triple) {
  std::vector<std::string> inputs;
  std::string library, folder = ".";
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--output" && i + 1 < argc) folder = argv[++i];
    else if (library.empty()) library = argument;
    else inputs.push_back(argument);
  }
  if (library.empty()) {
    std::cerr << "usage: " << argv[0] << " LIBRARY INPUT.bin... [--output FOLDER]\n";
    return 2;
  }
  try {
    return Run(device, triple, library, inputs, folder);
  } catch (const std::exception& error) {
    std::cerr << argv[0] << ": " << error.what() << "\n";
    return 1;
  }
}
