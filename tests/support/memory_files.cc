#include "tests/support/memory_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace lanewise::testing {

using model::FileInfo;
using model::OpenMode;

struct MemoryFiles::Node {
  bool is_folder = false;
  std::string content, synced_content;
  Entries entries, synced_entries;
  bool locked = false;
};

MemoryFiles::MemoryFiles() : root_(std::make_shared<Node>()) { root_->is_folder = true; }
MemoryFiles::~MemoryFiles() = default;

int MemoryFiles::Fault() {
  const int operation = operations_++;
  if (stop_at_ >= 0 && operation >= stop_at_) return EIO;
  return operation == fail_at_ ? fail_error_ : 0;
}

size_t MemoryFiles::Transfer(size_t size) const {
  return operations_ - 1 == shorten_at_ ? std::min<size_t>(size, 1) : std::min(size, transfer_);
}

std::shared_ptr<MemoryFiles::Node> MemoryFiles::Find(const std::string& path) const {
  std::shared_ptr<Node> node = root_;
  size_t begin = 0;
  while (begin < path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty() || name == ".") continue;
    const auto found = node->entries.find(name);
    if (!node->is_folder || found == node->entries.end()) return nullptr;
    node = found->second;
  }
  return node;
}

std::shared_ptr<MemoryFiles::Node> MemoryFiles::Parent(const std::string& path,
                                                       std::string* name) const {
  *name = model::BaseName(path);
  const auto parent = Find(model::ParentPath(path));
  return parent != nullptr && parent->is_folder ? parent : nullptr;
}

std::shared_ptr<MemoryFiles::Node> MemoryFiles::Copy(const Node& node, Loss loss) {
  auto copy = std::make_shared<Node>();
  copy->is_folder = node.is_folder;
  copy->content = loss == Loss::kNothing ? node.content : node.synced_content;
  copy->synced_content = copy->content;
  for (const auto& [name, child] : loss == Loss::kUnsynced ? node.synced_entries : node.entries) {
    copy->entries[name] = Copy(*child, loss);
  }
  copy->synced_entries = copy->entries;
  return copy;
}

std::unique_ptr<MemoryFiles> MemoryFiles::Restart(Loss loss) const {
  auto files = std::make_unique<MemoryFiles>();
  files->root_ = Copy(*root_, loss);
  return files;
}

std::vector<std::string> MemoryFiles::AllFiles() const {
  std::vector<std::string> paths;
  const auto walk = [&](const auto& self, const Node& node, const std::string& prefix) -> void {
    for (const auto& [name, child] : node.entries) {
      std::string path = prefix;
      if (!path.empty()) path += '/';
      path += name;
      child->is_folder ? self(self, *child, path) : paths.push_back(path);
    }
  };
  walk(walk, *root_, "");
  return paths;
}

std::string MemoryFiles::Content(const std::string& path) const {
  const auto node = Find(path);
  return node == nullptr ? "" : node->content;
}

void MemoryFiles::SetContent(const std::string& path, const std::string& content) {
  std::shared_ptr<Node> folder = root_;
  for (size_t begin = 0, end; (end = path.find('/', begin)) != std::string::npos; begin = end + 1) {
    auto& child = folder->entries[path.substr(begin, end - begin)];
    if (child == nullptr) child = std::make_shared<Node>();
    child->is_folder = true;
    folder->synced_entries = folder->entries;
    folder = child;
  }
  auto node = std::make_shared<Node>();
  node->content = node->synced_content = content;
  folder->entries[model::BaseName(path)] = node;
  folder->synced_entries = folder->entries;
}

int64_t MemoryFiles::Open(const std::string& path, OpenMode mode) {
  if (const int error = Fault()) return -error;
  std::shared_ptr<Node> node = Find(path);
  if (node == nullptr) {
    std::string name;
    const auto parent = Parent(path, &name);
    if (mode == OpenMode::kRead || parent == nullptr) return -ENOENT;
    node = parent->entries[name] = std::make_shared<Node>();
  }
  if (node->is_folder && mode != OpenMode::kRead) return -EISDIR;
  if (mode == OpenMode::kWrite) node->content.clear();
  const size_t position = mode == OpenMode::kAppend ? node->content.size() : 0;
  handles_[next_handle_] = {node, position, false};
  return next_handle_++;
}

bool MemoryFiles::Interrupts() {
  if (transfer_ == SIZE_MAX) return false;
  interrupted_ = !interrupted_;
  return interrupted_;
}

int64_t MemoryFiles::Read(int64_t handle, void* data, size_t size) {
  largest_read_ = std::max(largest_read_, size);
  if (const int error = Fault()) return -error;
  if (Interrupts()) return -EINTR;
  Handle& open = handles_.at(handle);
  if (open.node->is_folder) return -EISDIR;
  const std::string& content = open.node->content;
  const size_t count = std::min(Transfer(size), content.size() - open.position);
  std::memcpy(data, content.data() + open.position, count);
  open.position += count;
  return static_cast<int64_t>(count);
}

int64_t MemoryFiles::Write(int64_t handle, const void* data, size_t size) {
  if (const int error = Fault()) return -error;
  if (Interrupts()) return -EINTR;
  Handle& open = handles_.at(handle);
  const size_t count = Transfer(size);
  std::string& content = open.node->content;
  if (content.size() < open.position + count) content.resize(open.position + count);
  std::memcpy(content.data() + open.position, data, count);
  open.position += count;
  return static_cast<int64_t>(count);
}

int MemoryFiles::Sync(int64_t handle) {
  if (const int error = Fault()) return -error;
  Node& node = *handles_.at(handle).node;
  node.synced_content = node.content;
  return 0;
}

int MemoryFiles::Close(int64_t handle) {
  const int error = Fault();
  const auto found = handles_.find(handle);
  if (found->second.locks) found->second.node->locked = false;
  handles_.erase(found);
  return -error;
}

int MemoryFiles::Lock(int64_t handle) {
  if (const int error = Fault()) return -error;
  Handle& open = handles_.at(handle);
  if (open.node->locked) return -EWOULDBLOCK;
  open.node->locked = open.locks = true;
  return 0;
}

int MemoryFiles::Map(int64_t handle, size_t size, const std::byte** data) {
  if (const int error = Fault()) return -error;
  const std::string& content = handles_.at(handle).node->content;
  if (size > content.size()) return -EINVAL;
  auto* copy = new std::byte[size];
  std::memcpy(copy, content.data(), size);
  *data = copy;
  return 0;
}

void MemoryFiles::Unmap(const std::byte* data, size_t) { delete[] data; }

int MemoryFiles::Info(const std::string& path, FileInfo* info) {
  if (const int error = Fault()) return -error;
  const auto node = Find(path);
  *info = {};
  if (node == nullptr) return 0;
  info->kind = node->is_folder ? FileInfo::Kind::kDirectory : FileInfo::Kind::kFile;
  info->size = node->content.size();
  return 0;
}

int MemoryFiles::ReadLink(const std::string& path, std::string*) {
  if (const int error = Fault()) return -error;
  return Find(path) == nullptr ? -ENOENT : -EINVAL;  // it has no links
}

int MemoryFiles::List(const std::string& path, std::vector<std::string>* names) {
  if (const int error = Fault()) return -error;
  const auto node = Find(path);
  if (node == nullptr) return -ENOENT;
  if (!node->is_folder) return -ENOTDIR;
  for (const auto& [name, child] : node->entries) names->push_back(name);
  return 0;
}

int MemoryFiles::Rename(const std::string& from, const std::string& to) {
  if (const int error = Fault()) return -error;
  std::string from_name, to_name;
  const auto from_folder = Parent(from, &from_name);
  const auto to_folder = Parent(to, &to_name);
  const auto node = Find(from);
  const auto target = Find(to);
  if (node == nullptr || to_folder == nullptr) return -ENOENT;
  if (node == target) return 0;
  if (target != nullptr && target->is_folder && !target->entries.empty()) return -ENOTEMPTY;
  from_folder->entries.erase(from_name);
  to_folder->entries[to_name] = node;
  return 0;
}

int MemoryFiles::HardLink(const std::string& existing, const std::string& link) {
  if (const int error = Fault()) return -error;
  if (!hard_links_) return -EPERM;
  std::string name;
  const auto folder = Parent(link, &name);
  const auto node = Find(existing);
  if (node == nullptr || folder == nullptr) return -ENOENT;
  if (folder->entries.contains(name)) return -EEXIST;
  folder->entries[name] = node;
  return 0;
}

int MemoryFiles::RemoveFile(const std::string& path) {
  if (const int error = Fault()) return -error;
  std::string name;
  const auto folder = Parent(path, &name);
  const auto node = Find(path);
  if (node == nullptr) return -ENOENT;
  if (node->is_folder) return -EISDIR;
  folder->entries.erase(name);
  return 0;
}

int MemoryFiles::RemoveDirectory(const std::string& path) {
  if (const int error = Fault()) return -error;
  std::string name;
  const auto folder = Parent(path, &name);
  const auto node = Find(path);
  if (node == nullptr) return -ENOENT;
  if (!node->is_folder) return -ENOTDIR;
  if (!node->entries.empty()) return -ENOTEMPTY;
  folder->entries.erase(name);
  return 0;
}

int MemoryFiles::MakeDirectory(const std::string& path) {
  if (const int error = Fault()) return -error;
  std::string name;
  const auto folder = Parent(path, &name);
  if (folder == nullptr) return -ENOENT;
  if (folder->entries.contains(name)) return -EEXIST;
  auto node = std::make_shared<Node>();
  node->is_folder = true;
  folder->entries[name] = node;
  return 0;
}

int MemoryFiles::SyncDirectory(const std::string& path) {
  if (const int error = Fault()) return -error;
  const auto node = Find(path);
  if (node == nullptr) return -ENOENT;
  node->synced_entries = node->entries;
  return 0;
}

int64_t MemoryFiles::FreeSpace(const std::string&) {
  if (const int error = Fault()) return -error;
  return free_space_;
}

}  // namespace lanewise::testing
