#include "model/data.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <numeric>
#include <set>

#include "model/error.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"
#include "tests/support/temporary_folder.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::MemoryFiles;
using testing::MessageOf;

// Of this process; 0 where the system does not say.
size_t CountMappings() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<size_t>(
      std::count(std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>(), '\n'));
}

TokenArray Counting(int32_t count, int32_t vocab = 100'000) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  TokenArray tokens(vocab);
  tokens.Append(ids);
  return tokens;
}

struct Batch {
  std::vector<int32_t> inputs, targets;
  BatchInfo info;
};

Batch NextBatch(BatchSource& source) {
  Batch batch;
  batch.inputs.resize(source.rows() * source.ctx());
  batch.targets.resize(batch.inputs.size());
  batch.info = source.Next(batch.inputs, batch.targets);
  return batch;
}

TEST_CASE("small files take no mapping each: systems allow 65,530") {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 300; ++i) folder.Write(std::to_string(i) + ".txt", "some text");
  const auto files = MakeSystemFiles();
  const size_t before = CountMappings();
  const TextCorpus corpus(*files, {folder.path()});
  CHECK(corpus.texts().size() == 300);
  CHECK(CountMappings() < before + 100);
}

TEST_CASE("a run or a model among the texts is none, and what is no text is named") {
  MemoryFiles files;
  files.SetContent("d/a.txt", "a");
  files.SetContent("d/killed/.lock", "1");  // before its first save
  files.SetContent("d/killed/log.jsonl", "{}");
  files.SetContent("d/model/config.json", "{}");
  files.SetContent("d/model/model.safetensors", "binary");
  files.SetContent("d/settings/config.json", "{}");
  CHECK(TextCorpus(files, {"d"}).paths() ==
        std::vector<std::string>{"d/a.txt", "d/settings/config.json"});
  files.SetContent("text.gz", "\x1f\x8bpacked");
  files.SetContent("wide.txt", std::string("\xff\xfe"
                                           "a\0",
                                           4));
  const TextCorpus corpus(files, {"text.gz", "wide.txt"});
  REQUIRE(corpus.notices().size() == 2);
  CHECK(corpus.notices()[0].find("gzip") != std::string::npos);
  CHECK(corpus.notices()[1].find("UTF-16") != std::string::npos);
}

#if !defined(_WIN32)
TEST_CASE("links to files and folders that are read already are left out, and said") {
  const testing::TemporaryFolder folder;
  folder.Write("a/one.txt", "one");
  std::filesystem::create_directory_symlink(folder.path(), folder / "a/back");
  std::filesystem::create_directory_symlink(folder / "a", folder / "z");
  std::filesystem::create_symlink(folder / "a/one.txt", folder / "a/two.txt");
  std::filesystem::create_symlink(folder / "x", folder / "y");  // a circle
  std::filesystem::create_symlink(folder / "y", folder / "x");
  const auto files = MakeSystemFiles();
  const TextCorpus corpus(*files, {folder.path()});
  CHECK(corpus.paths() == std::vector<std::string>{folder / "a/one.txt"});
  REQUIRE(corpus.notices().size() == 1);
  CHECK(corpus.notices()[0].find("3 links") != std::string::npos);
}
#endif

TEST_CASE("files and folders become one corpus") {
  MemoryFiles files;
  files.SetContent("d/b.txt", "bb");
  files.SetContent("d/a/z.md", "zzz");
  files.SetContent("d/a.txt", "a");
  files.SetContent("d/.hidden", "h");
  files.SetContent("d/image", std::string("PNG\0x", 5));
  files.SetContent("d/empty", "");
  files.SetContent("one", std::string("o\0e", 3));
  const TextCorpus corpus(files, {"one", "d"});
  CHECK(corpus.paths() == std::vector<std::string>{"one", "d/a/z.md", "d/a.txt", "d/b.txt"});
  CHECK(corpus.bytes() == 9);
  CHECK(corpus.texts()[0] == std::string_view("o\0e", 3));
  REQUIRE(corpus.notices().size() == 2);
  CHECK(corpus.notices()[0] ==
        "one: holds zero bytes, as binary files do; its bytes are taken as they are");
  CHECK(corpus.notices()[1] == "d: 2 empty or binary files left out");

  const uint64_t hash = corpus.Hash();
  CHECK(TextCorpus(files, {"one", "d"}).Hash() == hash);
  CHECK(TextCorpus(files, {"d", "one"}).Hash() != hash);
  files.SetContent("d/a.txt", "b");
  CHECK(TextCorpus(files, {"one", "d"}).Hash() != hash);
  // The same bytes cut elsewhere are other data.
  files.SetContent("x", "ab");
  files.SetContent("y", "c");
  files.SetContent("x2", "a");
  files.SetContent("y2", "bc");
  CHECK(TextCorpus(files, {"x", "y"}).Hash() != TextCorpus(files, {"x2", "y2"}).Hash());
}

TEST_CASE("data that cannot be used is refused with what it is") {
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  testing::WriteWhole(folder / "empty.txt", "");
  MakeDirectories(*files, folder / "none");
  const auto message = [&](const std::string& path) {
    return MessageOf<InputError>([&] { TextCorpus(*files, {path}); });
  };
  CHECK(Contains(message(folder / "missing.txt"), "missing.txt: no such file"));
  CHECK(Contains(message(folder / "empty.txt"), "is empty"));
  CHECK(Contains(message(folder / "none"), "no text files"));
  CHECK(!MessageOf<UsageError>([&] { TextCorpus(*files, {}); }).empty());
}

TEST_CASE("the last tenth is for validation, cut between characters") {
  const std::string text = "0123456789";
  const std::string_view one[] = {text};
  TextSplit split = SplitTexts(one, 0.1);
  CHECK(split.train == std::vector<std::string_view>{"012345678"});
  CHECK(split.validation == std::vector<std::string_view>{"9"});
  split = SplitTexts(one, 0.0);
  CHECK(split.validation.empty());
  CHECK(split.train.size() == 1);

  const std::string_view several[] = {"abc", "def", "ghi"};
  split = SplitTexts(several, 0.5);
  CHECK(split.train == std::vector<std::string_view>{"abc", "d"});
  CHECK(split.validation == std::vector<std::string_view>{"ef", "ghi"});

  const std::string_view accents[] = {"aé日"};
  for (const double fraction : {0.9, 0.7, 0.5, 0.3, 0.2}) {
    split = SplitTexts(accents, fraction);
    for (const auto& part : split.validation) CHECK((part[0] & 0xC0) != 0x80);
  }
  for (const double fraction : {-0.1, 1.0, std::nan("")}) {
    CHECK(!MessageOf<UsageError>([&] { SplitTexts(one, fraction); }).empty());
  }
}

TEST_CASE("tokens take as many bytes as the vocabulary needs") {
  for (const auto& [vocab, width] : {std::pair{256, 1}, {257, 2}, {65536, 2}, {65537, 4}}) {
    TokenArray tokens(vocab);
    const std::vector<int32_t> ids = {0, vocab - 1, vocab / 2};
    tokens.Append(ids);
    CHECK(tokens.size() == 3);
    CHECK(tokens.MemoryBytes() == static_cast<uint64_t>(3 * width));
    std::vector<int32_t> copy(2);
    tokens.Copy(1, copy);
    CHECK(copy == std::vector<int32_t>{vocab - 1, vocab / 2});
    CHECK(tokens[1] == vocab - 1);
    CHECK_THROWS(tokens.Copy(2, copy));
    CHECK_THROWS_AS(tokens.Append(std::vector<int32_t>{vocab}), std::out_of_range);
    CHECK_THROWS_AS(tokens.Append(std::vector<int32_t>{-1}), std::out_of_range);
  }
}

TEST_CASE("texts are tokenized one after the other") {
  const std::string_view texts[] = {"ab", "cd"};
  const auto tokenizer = BuildTokenizer("byte", texts, {});
  const TokenArray tokens = Tokenize(*tokenizer, texts);
  CHECK(tokens.size() == 4);
  CHECK(tokens.bytes == 4);
  CHECK(tokens[2] == 'c');
}

TEST_CASE("token ids from a file") {
  MemoryFiles files;
  files.SetContent("ids", " 1 2\n30\t4\r\n0");
  const TokenArray tokens = ReadTokenIds(files, "ids", 31);
  CHECK(tokens.size() == 5);
  CHECK(tokens[2] == 30);
  const auto message = [&](const std::string& text, int32_t vocab) {
    files.SetContent("bad", text);
    return MessageOf<InputError>([&] { ReadTokenIds(files, "bad", vocab); });
  };
  CHECK(Contains(message("1 2\n3 x", 9), "bad: line 2: \"x\" is no token id from 0 to 8"));
  CHECK(Contains(message("9", 9), "\"9\" is no token id"));
  CHECK(Contains(message("-1", 9), "\"-1\""));
  CHECK(Contains(message("1.5", 9), "\"1.5\""));
  CHECK(Contains(message("99999999999999", 9), "\"99999999999999\""));
  CHECK(Contains(message(" \n", 9), "no token ids"));
}

// Every target that one epoch gives, with its input and whether a row goes on.
TEST_CASE("shuffled: each target exactly once in an epoch, after its own input") {
  for (const int32_t count : {2, 5, 17, 64, 65, 1000}) {
    for (const size_t ctx : {size_t{1}, size_t{4}, size_t{16}}) {
      const TokenArray tokens = Counting(count);
      BatchSource source(tokens, {.rows = 1, .ctx = ctx, .seed = 3});
      CAPTURE(count);
      CAPTURE(ctx);
      for (uint64_t epoch = 0; epoch < 3; ++epoch) {
        std::multiset<int32_t> seen;
        do {
          const Batch batch = NextBatch(source);
          CHECK(source.position().epoch == epoch);
          size_t targets = 0;
          for (size_t t = 0; t < batch.inputs.size(); ++t) {
            if (batch.targets[t] < 0) continue;
            REQUIRE(batch.targets[t] == batch.inputs[t] + 1);
            seen.insert(batch.targets[t]);
            ++targets;
          }
          CHECK(batch.info.targets == targets);
          CHECK(targets > 0);
          CHECK(batch.info.reset_state);
        } while (seen.size() < static_cast<size_t>(count - 1));
        CHECK(std::set<int32_t>(seen.begin(), seen.end()).size() == seen.size());
        CHECK(*seen.begin() == 1);
        CHECK(*seen.rbegin() == count - 1);
      }
    }
  }
}

TEST_CASE("shuffled: another order and other cuts in each epoch, the same for the same seed") {
  const TokenArray tokens = Counting(1000);
  const auto first_inputs = [&](uint64_t seed, uint64_t epoch) {
    BatchSource source(tokens, {.rows = 60, .ctx = 16, .seed = seed});
    source.set_position({epoch, 0});
    return NextBatch(source).inputs;
  };
  CHECK(first_inputs(1, 0) == first_inputs(1, 0));
  CHECK(first_inputs(1, 0) != first_inputs(2, 0));
  CHECK(first_inputs(1, 0) != first_inputs(1, 1));
  std::vector<int32_t> order;
  const auto inputs = first_inputs(1, 0);
  for (size_t row = 0; row < 60; ++row) order.push_back(inputs[row * 16]);
  CHECK(!std::is_sorted(order.begin(), order.end()));
  // A fair shuffle leaves about one of 60 in its place.
  std::vector<int32_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  int fixed = 0;
  for (size_t i = 0; i < order.size(); ++i) fixed += order[i] == sorted[i];
  CHECK(fixed < 8);
}

TEST_CASE("sequential: rows go on where they were, each target once in an epoch") {
  for (const int32_t count : {2, 17, 65, 1000}) {
    for (const size_t rows : {size_t{1}, size_t{3}, size_t{8}}) {
      CAPTURE(count);
      CAPTURE(rows);
      const TokenArray tokens = Counting(count);
      const int32_t wrap = count - 1;
      BatchSource source(tokens, {.rows = rows, .ctx = 7, .sequential = true, .seed = 11});
      for (uint64_t epoch = 0; epoch < 3; ++epoch) {
        std::multiset<int32_t> seen;
        std::vector<int32_t> next(rows, -1);
        bool first = true;
        do {
          const Batch batch = NextBatch(source);
          CHECK(batch.info.reset_state == first);
          first = false;
          for (size_t i = 0; i < batch.inputs.size(); ++i) {
            const size_t row = i / source.ctx();
            if (batch.targets[i] < 0) continue;
            REQUIRE(batch.targets[i] == batch.inputs[i] + 1);
            if (next[row] >= 0) REQUIRE(batch.inputs[i] % wrap == next[row] % wrap);
            next[row] = batch.targets[i];
            seen.insert(batch.targets[i]);
          }
        } while (seen.size() < static_cast<size_t>(count - 1));
        CHECK(std::set<int32_t>(seen.begin(), seen.end()).size() == seen.size());
      }
    }
  }
}

TEST_CASE("a position alone is enough to go on") {
  const TokenArray tokens = Counting(500);
  for (const bool sequential : {false, true}) {
    const BatchSource::Options options = {.rows = 4, .ctx = 9, .sequential = sequential, .seed = 5};
    BatchSource straight(tokens, options);
    for (int step = 0; step < 60; ++step) {
      const DataPosition position = straight.position();
      const Batch expected = NextBatch(straight);
      BatchSource resumed(tokens, options);
      resumed.set_position(position);
      const Batch got = NextBatch(resumed);
      REQUIRE(got.inputs == expected.inputs);
      REQUIRE(got.targets == expected.targets);
      CHECK(resumed.position() == straight.position());
    }
    CHECK(straight.position().epoch > 2);
    CHECK(!MessageOf<InputError>([&] { straight.set_position({0, 1'000'000}); }).empty());
  }
}

TEST_CASE("short texts get short windows, and one token is too few") {
  const TokenArray tokens = Counting(5);
  BatchSource source(tokens, {.rows = 2, .ctx = 64});
  CHECK(source.ctx() == 4);
  CHECK(Contains(source.notice(), "windows of 4 instead of 64"));
  CHECK(NextBatch(source).info.targets > 0);
  CHECK(BatchSource(tokens, {.rows = 1, .ctx = 4}).notice().empty());
  const TokenArray one = Counting(1);
  CHECK(Contains(MessageOf<InputError>([&] { BatchSource(one, {.rows = 1, .ctx = 4}); }),
                 "at least 2"));
}

TEST_CASE("batches an epoch") {
  for (const int32_t count : {2, 17, 65, 1001}) {
    const TokenArray tokens = Counting(count);
    const auto size = static_cast<uint64_t>(count);
    for (const size_t rows : {size_t{1}, size_t{5}, size_t{40}}) {
      for (const bool sequential : {false, true}) {
        CAPTURE(count);
        CAPTURE(rows);
        CAPTURE(sequential);
        const BatchSource::Options options = {.rows = rows, .ctx = 10, .sequential = sequential};
        BatchSource source(tokens, options);
        uint64_t targets = 0;
        for (int batch = 0; batch < 4000; ++batch) targets += NextBatch(source).info.targets;
        const double expected =
            4000.0 * static_cast<double>(size - 1) / static_cast<double>(targets);
        CHECK(BatchSource::BatchesPerEpoch(size, options) ==
              doctest::Approx(expected).epsilon(0.01));
      }
    }
  }
}

}  // namespace
}  // namespace lanewise::model
