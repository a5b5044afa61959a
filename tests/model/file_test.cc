#include "model/file.h"

#include <doctest/doctest.h>
#ifndef _WIN32
#include <sys/stat.h>
#endif

#include <cerrno>
#include <filesystem>

#include "model/error.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::Loss;
using testing::MemoryFiles;
using testing::MessageOf;

TEST_CASE("paths") {
  CHECK(JoinPath("a", "b") == "a/b");
  CHECK(JoinPath("a/", "b") == "a/b");
  CHECK(ParentPath("a/b/c") == "a/b");
  CHECK(ParentPath("a/b/") == "a");
  CHECK(ParentPath("a") == ".");
  CHECK(ParentPath("/a") == "/");
  CHECK(ParentPath("/") == "/");
  CHECK(BaseName("a/b.txt") == "b.txt");
  CHECK(BaseName("a/b/") == "b");
  CHECK(BaseName("b") == "b");
  CHECK(FormatBytes(500) == "500 bytes");
  CHECK(FormatBytes(1536) == "1.5 KiB");
}

TEST_CASE("interrupted and short reads and writes are completed") {
  MemoryFiles files;
  files.TransferAtMost(3);
  const std::string text = "a text that takes several pieces";
  WriteFileAtomically(files, "f", text);
  CHECK(files.Content("f") == text);
  CHECK(ReadFile(files, "f", 1000) == text);
}

TEST_CASE("every failing operation of an atomic write leaves the old file and no other") {
  MemoryFiles count;
  count.SetContent("f", "old");
  WriteFileAtomically(count, "f", "new");
  for (int k = 0; k < count.operations(); ++k) {
    CAPTURE(k);
    MemoryFiles files;
    files.SetContent("f", "old");
    files.FailAt(k, ENOSPC);
    const std::string message = MessageOf<IoError>([&] { WriteFileAtomically(files, "f", "new"); });
    CHECK(Contains(message, "No space left"));
    CHECK(Contains(message, "f"));
    // The rename is done before the folder is synced, the last operation.
    CHECK(files.Content("f") == (k + 1 < count.operations() ? "old" : "new"));
    CHECK(files.AllFiles() == std::vector<std::string>{"f"});
  }
}

TEST_CASE("a power cut at any operation leaves the old or the new file whole") {
  MemoryFiles count;
  count.SetContent("f", "old");
  WriteFileAtomically(count, "f", "new");
  for (const Loss loss : {Loss::kNothing, Loss::kUnsynced, Loss::kContent}) {
    for (int k = 0; k <= count.operations(); ++k) {
      CAPTURE(k);
      MemoryFiles files;
      files.SetContent("f", "old");
      files.StopAt(k);
      const bool done = MessageOf<IoError>([&] { WriteFileAtomically(files, "f", "new"); }).empty();
      const std::string left = files.Restart(loss)->Content("f");
      CHECK((left == "old" || left == "new"));
      if (done) CHECK(left == "new");
    }
  }
}

TEST_CASE("reading what cannot be read says so") {
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  CHECK(Contains(MessageOf<InputError>([&] { ReadFile(*files, folder / "none", 10); }),
                 "no such file"));
  CHECK(Contains(MessageOf<InputError>([&] { MappedFile(*files, folder / "none"); }),
                 "no such file"));
  CHECK(Contains(MessageOf<InputError>([&] { ReadFile(*files, folder.path(), 10); }), "folder"));
  CHECK(Contains(MessageOf<InputError>([&] { MappedFile(*files, folder.path()); }), "folder"));
  WriteFileAtomically(*files, folder / "long", std::string(100, 'x'));
  CHECK(Contains(MessageOf<InputError>([&] { ReadFile(*files, folder / "long", 99); }), "longer"));
  CHECK(ReadFile(*files, folder / "long", 100).size() == 100);
}

TEST_CASE("what cannot be mapped is read") {
  for (const int error : {ENODEV, ENOMEM, EIO}) {
    CAPTURE(error);
    testing::MemoryFiles files;
    files.SetContent("text", "some text");
    files.FailAt(2, error);  // after what the file is, and opening it
    const auto read = [&] { return std::string(MappedFile(files, "text").text()); };
    if (error == EIO) {
      CHECK_THROWS_AS(read(), IoError);
    } else {
      CHECK(read() == "some text");
    }
  }
}

TEST_CASE("the system's files: map, append, link, list, lock, remove") {
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  MakeDirectories(*files, folder / "a/b/c");
  CHECK(IsDirectory(*files, folder / "a/b/c"));
  const std::string bytes = testing::RandomBytes(10'000, 1);
  WriteFileAtomically(*files, folder / "a/x", bytes);
  MappedFile mapped(*files, folder / "a/x");
  CHECK(mapped.text() == bytes);
#ifndef _WIN32  // it may refuse that
  WriteFileAtomically(*files, folder / "a/x", "changed");
  CHECK(mapped.text() == bytes);  // the old content lives as long as its mapping
#endif

  WriteFileAtomically(*files, folder / "a/empty", "");
  CHECK(MappedFile(*files, folder / "a/empty").bytes().empty());

  for (int i = 0; i < 2; ++i) {
    File file(*files, folder / "log", OpenMode::kAppend);
    file.Write("line\n");
  }
  CHECK(ReadFile(*files, folder / "log", 100) == "line\nline\n");

  CHECK(files->HardLink(folder / "log", folder / "link") == 0);
  CHECK(ListDirectory(*files, folder.path()) == std::vector<std::string>{"a", "link", "log"});
  {
    File first(*files, folder / "lock", OpenMode::kLock);
    CHECK(first.TryLock());
    File second(*files, folder / "lock", OpenMode::kLock);
    CHECK(!second.TryLock());
  }
  File third(*files, folder / "lock", OpenMode::kLock);
  CHECK(third.TryLock());
  mapped = MappedFile();
  RemoveTree(*files, folder / "a");
  CHECK(GetInfo(*files, folder / "a").kind == FileInfo::Kind::kMissing);
  RemoveTree(*files, folder / "a");
  CHECK(files->FreeSpace(folder.path()) > 0);
  SyncDirectory(*files, folder.path());
}

#ifndef _WIN32
TEST_CASE("a link is followed when its file is written, and removed as a link") {
  namespace fs = std::filesystem;
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  const auto is_link = [&](const char* name) { return fs::is_symlink(folder / name); };
  MakeDirectories(*files, folder / "elsewhere");
  testing::WriteWhole(folder / "elsewhere/file", "old");
  fs::create_symlink("elsewhere/file", folder / "link");
  fs::create_symlink("link", folder / "second");
  fs::create_symlink("elsewhere/new", folder / "dangling");
  WriteFileAtomically(*files, folder / "second", "new");
  WriteFileAtomically(*files, folder / "dangling", "made");
  CHECK(is_link("second"));
  CHECK(is_link("link"));
  CHECK(testing::ReadWhole(folder / "elsewhere/file") == "new");
  CHECK(testing::ReadWhole(folder / "elsewhere/new") == "made");
  fs::create_symlink("circle", folder / "circle");
  CHECK(
      Contains(MessageOf([&] { WriteFileAtomically(*files, folder / "circle", "x"); }), "circle"));

  // A folder that has moved to another disk, as checkpoints do, and a file that has gone.
  MakeDirectories(*files, folder / "tree/inner");
  fs::create_directory_symlink("../elsewhere", folder / "tree/moved");
  fs::create_symlink("nowhere", folder / "tree/inner/gone");
  fs::create_directory_symlink("elsewhere", folder / "top");
  RemoveTree(*files, folder / "tree");
  RemoveTree(*files, folder / "top");
  CHECK_FALSE(fs::exists(folder / "tree"));
  CHECK_FALSE(is_link("top"));
  CHECK(testing::ReadWhole(folder / "elsewhere/file") == "new");
}

TEST_CASE("devices, pipes and folders are not replaced by a file") {
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  std::filesystem::create_symlink("pipe", folder / "link");
  for (const char* name : {"pipe", "link"}) {
    CHECK(Contains(MessageOf<IoError>([&] { WriteFileAtomically(*files, folder / name, "x"); }),
                   "is a device or a pipe"));
    CHECK(Contains(MessageOf<UsageError>([&] { ResolveOutput(*files, folder / name); }),
                   "is a device or a pipe"));
  }
  CHECK(std::filesystem::is_fifo(folder / "pipe"));
  CHECK(Contains(MessageOf<IoError>([&] { WriteFileAtomically(*files, folder.path(), "x"); }),
                 "is a folder"));
  CHECK(ListDirectory(*files, folder.path()) == std::vector<std::string>{"link", "pipe"});
}
#endif

TEST_CASE("too little space is found before writing") {
  MemoryFiles files;
  files.SetFreeSpace(10 << 20);
  RequireFreeSpace(files, ".", 5 << 20);
  const std::string message = MessageOf<IoError>([&] { RequireFreeSpace(files, ".", 10 << 20); });
  CHECK(Contains(message, "11.0 MiB are needed and 10.0 MiB are free"));
}

}  // namespace
}  // namespace lanewise::model
