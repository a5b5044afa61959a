// Folders and whole files on the real disk.
#ifndef LANEWISE_TESTS_SUPPORT_TEMPORARY_FOLDER_H_
#define LANEWISE_TESTS_SUPPORT_TEMPORARY_FOLDER_H_

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

namespace lanewise::testing {

inline std::string ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

inline void WriteWhole(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

// A folder that is removed with all it holds.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    do {
      const std::string name = "lanewise-test-" + std::to_string(std::random_device()());
      path_ = (std::filesystem::temp_directory_path() / name).string();
    } while (!std::filesystem::create_directory(path_));
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // Writes a file in it; returns its path.
  std::string Write(const std::string& name, const std::string& bytes) const {
    WriteWhole(*this / name, bytes);
    return *this / name;
  }

 private:
  std::string path_;
};

}  // namespace lanewise::testing

#endif  // LANEWISE_TESTS_SUPPORT_TEMPORARY_FOLDER_H_
