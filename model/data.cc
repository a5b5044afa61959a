#include "model/data.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "model/checksum.h"
#include "model/error.h"

namespace lanewise::model {
namespace {

constexpr size_t kTextProbe = 4096;
constexpr int kDeepestFolder = 64;
// Systems limit the number of mappings (Linux: 65,530), and a corpus may have more files than that.
constexpr uint64_t kWorthMapping = 256 << 10;

MappedFile OpenText(FileSystem& files, const std::string& path) {
  const FileInfo info = GetInfo(files, path);
  if (info.kind != FileInfo::Kind::kFile || info.size >= kWorthMapping) return {files, path};
  return MappedFile::FromBytes(ReadFile(files, path, kWorthMapping), path);
}

// A run or a model that was written among the texts: logs and settings are no text to train on. A
// run has the lock from its start, before the first save.
bool IsRunOrModel(FileSystem& files, const std::string& folder) {
  return IsFile(files, JoinPath(folder, ".lock")) ||
         IsFile(files, JoinPath(folder, "model.safetensors"));
}

// As GetInfo; links in a circle lead nowhere, as those to what is missing do.
FileInfo InfoOfEntry(FileSystem& files, const std::string& path) {
  FileInfo info;
  const int error = files.Info(path, &info);
  if (error == -ELOOP) return {};
  return error < 0 ? GetInfo(files, path) : info;
}

// The files of a folder and those below. Links may lead to a file, or back to a folder, twice.
struct Collection {
  std::vector<std::string> paths;
  std::set<std::pair<uint64_t, uint64_t>> seen;
  size_t again = 0;  // files that were there already
};

void Collect(FileSystem& files, const std::string& folder, int depth, Collection* found) {
  if (depth > kDeepestFolder || (depth > 0 && IsRunOrModel(files, folder))) return;
  for (const std::string& name : ListDirectory(files, folder)) {
    if (name.starts_with('.')) continue;
    const std::string path = JoinPath(folder, name);
    const FileInfo info = InfoOfEntry(files, path);
    const bool known = info.identity != std::pair<uint64_t, uint64_t>();
    if (known && !found->seen.insert(info.identity).second) {
      ++found->again;
      continue;
    }
    if (info.kind == FileInfo::Kind::kDirectory) Collect(files, path, depth + 1, found);
    if (info.kind == FileInfo::Kind::kFile) found->paths.push_back(path);
  }
}

bool LooksLikeText(std::string_view text) {
  return !text.empty() && text.substr(0, kTextProbe).find('\0') == std::string_view::npos;
}

// What bytes that are no text look like; nothing for text.
std::string WhatElse(std::string_view text) {
  if (text.starts_with("\x1f\x8b")) return "looks like a gzip file; unpack it first";
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    return "looks like UTF-16; convert it first: iconv -f UTF-16 -t UTF-8";
  }
  return LooksLikeText(text) ? "" : "holds zero bytes, as binary files do";
}

// `position`, moved forward out of a UTF-8 sequence.
size_t CutPosition(std::string_view text, size_t position) {
  for (int i = 0; i < 3 && position < text.size() && IsContinuation(text[position]); ++i)
    ++position;
  return position;
}

}  // namespace

TextCorpus::TextCorpus(FileSystem& files, const std::vector<std::string>& paths) {
  if (paths.empty()) throw UsageError("no data given; name one or several files or a folder");
  for (const std::string& path : paths) {
    const FileInfo info = GetInfo(files, path);
    if (info.kind != FileInfo::Kind::kDirectory) {
      MappedFile file = OpenText(files, path);
      if (file.bytes().empty()) throw InputError(path + ": is empty; there is nothing to read");
      const std::string what = WhatElse(file.text());
      if (!what.empty()) {
        std::string notice = path;
        notice.append(": ").append(what).append("; its bytes are taken as they are");
        notices_.push_back(std::move(notice));
      }
      paths_.push_back(path);
      files_.push_back(std::move(file));
      continue;
    }
    Collection found;
    found.seen.insert(info.identity);
    Collect(files, path, 0, &found);
    if (found.again > 0) {
      notices_.push_back(path + ": " + std::to_string(found.again) +
                         " links to what is read already left out");
    }
    const size_t before = files_.size();
    for (const std::string& name : found.paths) {
      MappedFile file = OpenText(files, name);
      if (!LooksLikeText(file.text())) continue;
      paths_.push_back(name);
      files_.push_back(std::move(file));
    }
    const size_t texts = files_.size() - before;
    if (texts == 0) {
      throw InputError(path + ": no text files in this folder (" +
                       std::to_string(found.paths.size()) + " files that are empty or binary)");
    }
    if (texts < found.paths.size()) {
      notices_.push_back(path + ": " + std::to_string(found.paths.size() - texts) +
                         " empty or binary files left out");
    }
  }
  FindRepeated(files);
  for (const MappedFile& file : files_) {
    texts_.push_back(file.text());
    bytes_ += file.bytes().size();
  }
}

// One file may have several names.
void TextCorpus::FindRepeated(FileSystem& files) {
  std::set<std::pair<uint64_t, uint64_t>> seen;
  for (const std::string& path : paths_) {
    const FileInfo info = GetInfo(files, path);
    if (info.kind != FileInfo::Kind::kFile || info.identity == decltype(info.identity)()) continue;
    repeated_ = repeated_ || !seen.insert(info.identity).second;
    if (!repeated_) continue;
    notices_.push_back(path + ": is given more than once, and read each time");
    return;
  }
}

uint64_t TextCorpus::Hash() const {
  ChecksumStream stream;
  for (const std::string_view text : texts_) {
    const uint64_t size = text.size();
    stream.Update(std::as_bytes(std::span(&size, 1)));
    stream.Update(std::as_bytes(std::span(text)));
  }
  return stream.Digest();
}

TextSplit SplitTexts(std::span<const std::string_view> texts, double fraction) {
  if (!(fraction >= 0.0 && fraction < 1.0)) {
    throw UsageError("the validation fraction must be at least 0 and below 1, is " +
                     std::to_string(fraction));
  }
  uint64_t total = 0;
  for (const std::string_view text : texts) total += text.size();
  // As other programs do it: the first int(n · (1 - fraction)) bytes are for training.
  uint64_t train = fraction == 0.0
                       ? total
                       : static_cast<uint64_t>(static_cast<double>(total) * (1.0 - fraction));
  TextSplit split;
  for (const std::string_view text : texts) {
    const auto part = static_cast<size_t>(std::min<uint64_t>(train, text.size()));
    const size_t cut = CutPosition(text, part);
    train -= part;
    if (cut > 0) split.train.push_back(text.substr(0, cut));
    if (cut < text.size()) split.validation.push_back(text.substr(cut));
  }
  return split;
}

TokenArray::TokenArray(int32_t vocab_size) : vocab_size_(vocab_size) {
  if (vocab_size <= 1 << 8) {
    ids_ = std::deque<uint8_t>();
  } else if (vocab_size <= 1 << 16) {
    ids_ = std::deque<uint16_t>();
  } else {
    ids_ = std::deque<int32_t>();
  }
}

void TokenArray::Append(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab_size_) continue;
    throw std::out_of_range("token " + std::to_string(id) + " of a vocabulary of " +
                            std::to_string(vocab_size_));
  }
  std::visit(
      [&](auto& stored) {
        using Id = typename std::decay_t<decltype(stored)>::value_type;
        for (const int32_t id : ids) stored.push_back(static_cast<Id>(id));
      },
      ids_);
}

uint64_t TokenArray::size() const {
  return std::visit([](const auto& stored) { return static_cast<uint64_t>(stored.size()); }, ids_);
}

int32_t TokenArray::operator[](uint64_t index) const {
  return std::visit([&](const auto& stored) { return static_cast<int32_t>(stored[index]); }, ids_);
}

void TokenArray::Copy(uint64_t first, std::span<int32_t> out) const {
  if (first > size() || out.size() > size() - first)
    throw std::out_of_range("tokens beyond the end");
  std::visit(
      [&](const auto& stored) {
        std::copy_n(stored.begin() + static_cast<std::ptrdiff_t>(first), out.size(), out.begin());
      },
      ids_);
}

uint64_t TokenArray::MemoryBytes() const {
  return std::visit(
      [](const auto& stored) {
        using Id = typename std::decay_t<decltype(stored)>::value_type;
        const uint64_t held = stored.size() * sizeof(Id);
        return held + held / 16;  // with the places of the pieces
      },
      ids_);
}

TokenArray Tokenize(const Tokenizer& tokenizer, std::span<const std::string_view> texts,
                    const ReadProgress& progress) {
  TokenArray tokens(tokenizer.vocab_size());
  const int32_t bos = tokenizer.bos_id();
  for (const std::string_view text : texts) {
    if (bos >= 0) tokens.Append({&bos, 1});
    tokenizer.EncodeTo(text, [&](std::span<const int32_t> ids, size_t bytes) {
      tokens.Append(ids);
      if (progress) progress(tokens.bytes + bytes);
    });
    tokens.bytes += text.size();
  }
  return tokens;
}

TokenArray Excerpt(const TokenArray& all, uint64_t tokens) {
  constexpr uint64_t kRun = 1024;
  // Not so many that they would overlap.
  const uint64_t most = std::max<uint64_t>(1, all.size() / kRun);
  const uint64_t runs = std::clamp<uint64_t>((tokens + kRun - 1) / kRun, 1, most);
  TokenArray excerpt(all.vocab_size());
  std::vector<int32_t> ids;
  for (uint64_t r = 0; r < runs; ++r) {
    const uint64_t begin = all.size() / runs * r;
    ids.resize(static_cast<size_t>(std::min(kRun, all.size() - begin)));
    all.Copy(begin, ids);
    excerpt.Append(ids);
  }
  excerpt.bytes =
      static_cast<uint64_t>(static_cast<double>(all.bytes) * static_cast<double>(excerpt.size()) /
                            static_cast<double>(all.size()));
  return excerpt;
}

TokenArray ReadTokenIds(FileSystem& files, const std::string& path, int32_t vocab_size) {
  const MappedFile file(files, path);
  const std::string_view text = file.text();
  TokenArray tokens(vocab_size);
  size_t line = 1;
  size_t i = 0;
  while (i < text.size()) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      ++i;
      continue;
    }
    const size_t end = std::min(text.find_first_of(" \n\t\r", i), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + i, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end || id < 0 || id >= vocab_size) {
      throw InputError(path + ": line " + std::to_string(line) + ": \"" +
                       std::string(text.substr(i, std::min<size_t>(end - i, 40))) +
                       "\" is no token id from 0 to " + std::to_string(vocab_size - 1));
    }
    tokens.Append({&id, 1});
    i = end;
  }
  if (tokens.size() == 0) throw InputError(path + ": holds no token ids");
  return tokens;
}

}  // namespace lanewise::model
