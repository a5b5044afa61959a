// Files in memory that keep apart what was written and what was synced: operations fail on demand,
// and a kill or a power cut can happen at any of them.
#ifndef LANEWISE_TESTS_SUPPORT_MEMORY_FILES_H_
#define LANEWISE_TESTS_SUPPORT_MEMORY_FILES_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/file.h"

namespace lanewise::testing {

// What is left after the machine stopped.
enum class Loss {
  kNothing,   // a killed process: all that was written is there
  kUnsynced,  // a power cut: only synced content under synced names
  kContent,  // a power cut after which names survived that were not synced, but no unsynced content
};

class MemoryFiles final : public model::FileSystem {
 public:
  MemoryFiles();
  ~MemoryFiles() override;

  // Operations so far: the place of faults.
  int operations() const { return operations_; }
  // The operation with this number (counted from 0) fails with the errno.
  void FailAt(int operation, int error) { fail_at_ = operation, fail_error_ = error; }
  // The operation with this number, if it is a read or a write, moves a single byte.
  void ShortenAt(int operation) { shorten_at_ = operation; }
  // All operations from this number on fail; the state before it is what Restart finds.
  void StopAt(int operation) { stop_at_ = operation; }
  // Every read and write moves at most `size` bytes, and every other one is interrupted first.
  void TransferAtMost(size_t size) { transfer_ = size; }
  void SetFreeSpace(int64_t bytes) { free_space_ = bytes; }
  void SetHardLinks(bool supported) { hard_links_ = supported; }
  // The files after a stop, as another process finds them.
  std::unique_ptr<MemoryFiles> Restart(Loss loss) const;

  // Bytes that a single read asked for, at most.
  size_t largest_read() const { return largest_read_; }
  // Files that are open now.
  size_t open_files() const { return handles_.size(); }

  // Direct access, without faults.
  std::vector<std::string> AllFiles() const;
  std::string Content(const std::string& path) const;
  void SetContent(const std::string& path, const std::string& content);

  int64_t Open(const std::string& path, model::OpenMode mode) override;
  int64_t Read(int64_t handle, void* data, size_t size) override;
  int64_t Write(int64_t handle, const void* data, size_t size) override;
  int Sync(int64_t handle) override;
  int Close(int64_t handle) override;
  int Lock(int64_t handle) override;
  int Map(int64_t handle, size_t size, const std::byte** data) override;
  void Unmap(const std::byte* data, size_t size) override;
  int Info(const std::string& path, model::FileInfo* info) override;
  int ReadLink(const std::string& path, std::string* target) override;
  int List(const std::string& path, std::vector<std::string>* names) override;
  int Rename(const std::string& from, const std::string& to) override;
  int HardLink(const std::string& existing, const std::string& link) override;
  int RemoveFile(const std::string& path) override;
  int RemoveDirectory(const std::string& path) override;
  int MakeDirectory(const std::string& path) override;
  int SyncDirectory(const std::string& path) override;
  int64_t FreeSpace(const std::string& path) override;

 private:
  struct Node;
  using Entries = std::map<std::string, std::shared_ptr<Node>>;
  struct Handle {
    std::shared_ptr<Node> node;
    size_t position = 0;
    bool locks = false;
  };

  // The error that the next operation shall have, 0 for none.
  int Fault();
  // How much of `size` bytes the operation that has just been counted moves.
  size_t Transfer(size_t size) const;
  bool Interrupts();  // every other transfer, when they are limited
  std::shared_ptr<Node> Find(const std::string& path) const;
  // The folder that holds the last part of the path, and that part.
  std::shared_ptr<Node> Parent(const std::string& path, std::string* name) const;
  static std::shared_ptr<Node> Copy(const Node& node, Loss loss);

  std::shared_ptr<Node> root_;
  std::map<int64_t, Handle> handles_;
  int64_t next_handle_ = 3;
  int operations_ = 0;
  int fail_at_ = -1;
  int fail_error_ = 0;
  int shorten_at_ = -1;
  int stop_at_ = -1;
  size_t transfer_ = SIZE_MAX;
  bool interrupted_ = false;
  size_t largest_read_ = 0;
  int64_t free_space_ = int64_t{1} << 40;
  bool hard_links_ = true;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_MEMORY_FILES_H_
