#include "apps/text_input.h"

#include <algorithm>
#include <array>
#include <span>

#include "apps/format.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "model/error.h"

namespace lanewise::apps {

std::function<void(double)> ReadingProgress() {
  return [left = TimeLeft()](double done) mutable {
    const std::string time = left.At(done);
    if (time.empty()) return;
    if (SignalExitCode() != 0) throw Stopped();
    Stderr().Progress({"reading the text", FormatFixed(100 * done, 0) + "%", time});
  };
}

namespace {

// Bytes for which the seed's table of characters has no token of their own.
uint64_t CountUnknownBytes(const model::Tokenizer& tokenizer,
                           std::span<const std::string_view> texts) {
  std::array<bool, 256> unknown;
  for (size_t byte = 0; byte < unknown.size(); ++byte) {
    const std::string text(1, static_cast<char>(byte));
    unknown[byte] = tokenizer.Decode(tokenizer.Encode(text)) != text;
  }
  uint64_t count = 0;
  for (const std::string_view text : texts) {
    count += static_cast<uint64_t>(std::ranges::count_if(
        text, [&](char c) { return unknown[static_cast<unsigned char>(c)]; }));
  }
  return count;
}

// Of the seed's tokenizers, which lose what they do not know: how much that is. Else empty.
std::string DescribeUnknown(const model::LoadedModel& loaded, const model::TextCorpus& corpus,
                            const model::TokenArray& tokens) {
  const model::Tokenizer& tokenizer = *loaded.tokenizer;
  if (tokenizer.kind() == "seed-char") {
    const uint64_t unknown = CountUnknownBytes(tokenizer, corpus.texts());
    if (unknown == 0) return "";
    return FormatNumber(unknown, "byte") + " of " + FormatInteger(corpus.bytes()) +
           " are not in the model's alphabet; they are read as other characters";
  }
  if (tokenizer.kind() != "seed-word") return "";
  const auto id = loaded.file.tokenizer["unk"].get<int32_t>();
  uint64_t unknown = 0;
  for (uint64_t i = 0; i < tokens.size(); ++i) unknown += tokens[i] == id ? 1 : 0;
  if (unknown == 0) return "";
  return FormatNumber(unknown, "token") + " of " + FormatInteger(tokens.size()) +
         " stand for words that are not in the model's vocabulary; bits per byte leave out what "
         "those words are";
}

// - is standard input where the system has a name for it.
std::string InputPath(const std::string& path) {
#if !defined(_WIN32)
  if (path == "-") return "/dev/stdin";
#endif
  return path;
}

}  // namespace

void TextInput::Declare(Options& options) {
  options.Exclusive("data");
  options.List("data", "FILE", &data_, /*greedy=*/false,
               "text file, or folder of text files; - reads standard input");
  options.Text("token-ids", "FILE", &ids_,
               "token ids separated by white space, in place of text; - reads standard input");
  options.Exclusive("");
}

void TextInput::Check(const Options& options) const {
  if (!options.Given("data") && !options.Given("token-ids")) {
    throw model::UsageError("--data FILE is missing (or --token-ids FILE)");
  }
}

model::TokenArray TextInput::Read(model::FileSystem& files,
                                  const model::LoadedModel& loaded) const {
  const EndOnSignal reading;
  model::TokenArray tokens;
  if (from_ids()) {
    tokens = model::ReadTokenIds(files, InputPath(ids_),
                                 static_cast<int32_t>(loaded.model->vocab_size()));
  } else {
    const model::Tokenizer& tokenizer =
        loaded.RequireTokenizer(", or give token ids (--token-ids)");
    std::vector<std::string> paths = data_;
    std::ranges::transform(paths, paths.begin(), InputPath);
    const model::TextCorpus corpus(files, paths);
    for (const std::string& notice : corpus.notices()) Stderr().Line("Note: " + notice);
    tokens = model::Tokenize(
        tokenizer, corpus.texts(), [show = ReadingProgress(), &corpus](uint64_t bytes) {
          show(static_cast<double>(bytes) / static_cast<double>(corpus.bytes()));
        });
    Stderr().ClearProgress();
    const std::string unknown = DescribeUnknown(loaded, corpus, tokens);
    if (!unknown.empty()) Stderr().Line("Note: " + unknown);
  }
  if (tokens.size() < 2) {
    throw model::InputError((from_ids() ? ids_ : data_.front()) + ": has " +
                            FormatNumber(tokens.size(), "token") +
                            "; two are the least from which one can be predicted");
  }
  return tokens;
}

}  // namespace lanewise::apps
