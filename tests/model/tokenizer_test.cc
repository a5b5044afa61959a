#include "model/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "model/error.h"
#include "model/formats/llama2c.h"
#include "tests/support/model_files.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::MessageOf;
using testing::RandomBytes;
using testing::TokenizerFile;
using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> Build(std::string_view kind, const std::string& text,
                                 int32_t max_vocab = 0) {
  const std::string_view texts[] = {text};
  return BuildTokenizer(kind, texts, {.max_vocab = max_vocab});
}

std::unique_ptr<Tokenizer> Reload(const Tokenizer& tokenizer) {
  return MakeTokenizer(ParseJson(tokenizer.ToJson().dump(), "tokenizer.json"), "tokenizer.json");
}

// Texts that tokenizers get wrong: tabs, CR, NULs, invalid UTF-8, spaces in all places, long words.
std::vector<std::string> HardTexts() {
  std::vector<std::string> texts = {"",
                                    " ",
                                    "  ",
                                    "\n",
                                    "\t\r\n",
                                    "a",
                                    " a",
                                    "a ",
                                    "  a  b  ",
                                    "the cat",
                                    "the\tcat\r",
                                    "the\0cat",
                                    "\xff\xfe",
                                    "\xc3",
                                    "é\xc3\xa9",
                                    "don't-stop!",
                                    "日本語 text",
                                    "<unk> <pad>",
                                    "<0x0A> </s>",
                                    "a_b c=d [e]",
                                    std::string("x\0y", 3),
                                    std::string(500, 'w'),
                                    std::string(200, ' '),
                                    "\xe2\x82",
                                    "the the the",
                                    " the, the. The"};
  for (uint64_t seed = 0; seed < 50; ++seed) texts.push_back(RandomBytes(seed * 7, seed));
  std::mt19937 random(1);
  const std::string letters = "the ca,. \n\t'\xc3\xa9\xff";
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (int n = 0; n < 60; ++n) text += letters[random() % letters.size()];
    texts.push_back(text);
  }
  return texts;
}

void CheckLossless(const Tokenizer& tokenizer) {
  CHECK(tokenizer.lossless());
  for (const std::string& text : HardTexts()) {
    CAPTURE(text);
    const Ids ids = tokenizer.Encode(text);
    for (const int32_t id : ids) REQUIRE((id >= 0 && id < tokenizer.vocab_size()));
    REQUIRE(tokenizer.Decode(ids) == text);
  }
}

TEST_CASE("byte") {
  const auto tokenizer = Build("byte", "x");
  CHECK(tokenizer->vocab_size() == 256);
  CHECK(tokenizer->Encode(std::string("a\0\xff", 3)) == Ids{97, 0, 255});
  CheckLossless(*tokenizer);
  CheckLossless(*Reload(*tokenizer));
}

TEST_CASE("char: the bytes that occur, sorted, and an escape") {
  const auto tokenizer = Build("char", "hello world");
  CHECK(tokenizer->vocab_size() == 9);
  CHECK(tokenizer->Encode(" dehlorw") == Ids{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(tokenizer->Encode("A") == Ids{8, 0, 1, 0, 0, 0, 0, 0, 1});
  CheckLossless(*tokenizer);
  CheckLossless(*Reload(*tokenizer));
  CHECK(Reload(*tokenizer)->Encode("hello A") == tokenizer->Encode("hello A"));

  const auto wide = Build("char", "abcdefghijklmnopqrstuvwxyz");
  CHECK(wide->Encode("A") == Ids{26, 4, 1});
  CheckLossless(*wide);
  CheckLossless(*Build("char", "aaaa"));
  CheckLossless(*Build("char", "abcdefghijklmno"));  // 16 ids with the escape

  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  CHECK(Build("char", all)->vocab_size() == 256);
  CheckLossless(*Build("char", all));
}

TEST_CASE("char: what a model writes after an escape need not be digits") {
  const auto tokenizer = Build("char", "abcdefghijklmnopqrstuvwxyz");
  CHECK(tokenizer->Decode(Ids{0, 26, 20, 1}) == "aub");
  CHECK(tokenizer->Decode(Ids{26, 26, 4, 1, 0}) == "Aa");
  CHECK(tokenizer->Decode(Ids{0, 26, 4}) == "a");
  CHECK(tokenizer->Decode(Ids{-1, 99, 0}) == "a");
}

TEST_CASE("word: by frequency, with the space before, bytes for what is unknown") {
  const std::string text = "the cat, the dog, the cat. a rare word";
  const auto tokenizer = Build("word", text);
  // " the" and " cat" occur twice, "the" once: it is not learned.
  CHECK(tokenizer->vocab_size() == 258);
  const auto piece = [&](int32_t id) { return tokenizer->TokenBytes(id); };
  CHECK(piece(256) == " cat");
  CHECK(piece(257) == " the");
  CHECK(tokenizer->Encode(" the cat,") == Ids{257, 256, ','});
  CHECK(tokenizer->Encode(" dog") == Ids{' ', 'd', 'o', 'g'});
  CHECK(tokenizer->Encode("  cat\tcat") == Ids{' ', 256, '\t', 'c', 'a', 't'});
  CheckLossless(*tokenizer);
  CheckLossless(*Reload(*tokenizer));

  // A word that is known without its space keeps it apart.
  const auto both = Build("word", "x\nx\nx y");
  CHECK(both->vocab_size() == 256);
  const auto plain = Build("word", "cat\ncat\ncat dog");
  CHECK(plain->Encode(" cat") == Ids{' ', 256});
  CHECK(plain->Encode("cat dog") == Ids{256, ' ', 'd', 'o', 'g'});
  CheckLossless(*plain);
}

TEST_CASE("word: the limit holds and must be possible") {
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    const std::string word = " w" + std::to_string(i);
    text += word + word;
  }
  CHECK(Build("word", text, 300)->vocab_size() == 300);
  CHECK(Build("word", text, 256)->vocab_size() == 256);
  CHECK(Build("word", text)->vocab_size() == 512);
  CHECK(!MessageOf<UsageError>([&] { Build("word", text, 255); }).empty());
  CHECK(!MessageOf<UsageError>([&] { Build("word", text, -1); }).empty());
}

// Merges the most frequent pair of all words again and again, counting anew each time; of pairs
// that are as frequent the one with the smaller ids. For words with one space before each.
std::vector<std::string> SlowMerges(const std::string& text, size_t vocab_size) {
  std::vector<std::string> words(1);
  std::map<std::string, size_t> counts;
  for (const char c : text) {
    if (c == ' ') words.emplace_back();
    words.back() += c;
    ++counts[std::string(1, c)];
  }
  std::vector<std::string> tokens(259);
  std::vector<std::pair<std::string, size_t>> ranked(counts.begin(), counts.end());
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [token, count] : ranked) tokens.push_back(token);
  const auto id = [&](const std::string& token) {
    return std::find(tokens.begin() + 259, tokens.end(), token) - tokens.begin();
  };
  std::vector<std::vector<std::string>> split;
  for (const std::string& word : words) {
    split.emplace_back();
    for (const char c : word) split.back().emplace_back(1, c);
  }
  while (tokens.size() < vocab_size) {
    std::map<std::pair<ptrdiff_t, ptrdiff_t>, size_t> pairs;
    for (const auto& word : split) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++pairs[{id(word[i]), id(word[i + 1])}];
    }
    const auto best =
        std::max_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
          return a.second < b.second;  // the first of the most frequent
        });
    if (best == pairs.end() || best->second < 2) break;
    const std::string left = tokens[static_cast<size_t>(best->first.first)];
    const std::string right = tokens[static_cast<size_t>(best->first.second)];
    if (id(left + right) == static_cast<ptrdiff_t>(tokens.size())) tokens.push_back(left + right);
    for (auto& word : split) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] += right;
        word.erase(word.begin() + static_cast<ptrdiff_t>(i) + 1);
      }
    }
  }
  return tokens;
}

TEST_CASE("bpe: the merges of the most frequent pairs, however they are counted") {
  std::mt19937 random(5);
  for (const size_t letters : {1, 2, 5, 20}) {
    CAPTURE(letters);
    std::string text = "a ";
    for (int i = 0; i < 4000; ++i) {
      // Longer words would be cut.
      const bool space =
          text.back() != ' ' && (random() % 6 == 0 || text.size() - text.rfind(' ') > 30);
      text +=
          space ? ' ' : static_cast<char>('a' + std::min(random() % letters, random() % letters));
    }
    const auto tokenizer = Build("bpe", text, 340);
    const std::vector<std::string> slow = SlowMerges(text, 340);
    CHECK(tokenizer->vocab_size() == static_cast<int32_t>(slow.size()));
    for (size_t i = 259; i < slow.size(); ++i) {
      CHECK(tokenizer->TokenBytes(static_cast<int32_t>(i)) == slow[i]);
    }
  }
}

TEST_CASE("bpe: any text comes back, and pieces keep to words") {
  std::string text;
  for (const std::string& hard : HardTexts()) text += hard + hard;
  const std::string line = " don't 1234, 日本語の文 über  the-end!\n\n";
  for (int i = 0; i < 1000; ++i) text += line;
  const auto tokenizer = Build("bpe", text, 600);
  CHECK(tokenizer->vocab_size() == 600);
  CHECK(tokenizer->kind() == "bpe");
  CHECK(tokenizer->bos_id() == 1);
  CheckLossless(*tokenizer);
  CheckLossless(*Reload(*tokenizer));
  CHECK(Reload(*tokenizer)->Encode(text) == tokenizer->Encode(text));
  CHECK(tokenizer->Encode(line + line).size() <= 32);
  const auto known = [&](const std::string& piece) {
    for (int32_t id = 259; id < 600; ++id) {
      if (tokenizer->TokenBytes(id) == piece) return true;
    }
    return false;
  };
  CHECK(known(" don't"));
  CHECK(known(" 日本語の文"));
  CHECK(known("\n\n"));
  for (const char* mixed : {"12", "1,", "the-", "-end", "end!", " the-"}) {
    CAPTURE(mixed);
    CHECK_FALSE(known(mixed));
  }
  CheckLossless(*Build("bpe", text, 260));
  CheckLossless(*Build("bpe", "a"));
  CHECK(Build("bpe", std::string(20'000, 'x'))->vocab_size() < 512);
  CHECK(Contains(MessageOf<UsageError>([&] { Build("bpe", text, 259); }), "260"));
}

TEST_CASE("auto chooses by size; unknown kinds are refused with the nearest") {
  CHECK(Build("auto", std::string(19'999, 'a'))->kind() == "char");
  CHECK(Build("auto", std::string(20'000, 'a'))->kind() == "word");
  CHECK(Contains(MessageOf<UsageError>([] { Build("wrod", "a"); }), "word"));
  CHECK(!MessageOf<InputError>([] { Build("char", ""); }).empty());
}

TEST_CASE("long texts come in pieces") {
  const std::string text = RandomBytes(100'000, 9);
  for (const char* kind : {"byte", "char", "word", "bpe"}) {
    const auto tokenizer = Build(kind, text);
    Ids ids;
    int pieces = 0;
    size_t read = 0;
    tokenizer->EncodeTo(text, [&](std::span<const int32_t> part, size_t bytes) {
      ids.insert(ids.end(), part.begin(), part.end());
      ++pieces;
      // No more than the ids stand for, and less by a token at most.
      CHECK(bytes > read);
      CHECK(tokenizer->Decode(ids).starts_with(text.substr(0, bytes)));
      read = bytes;
    });
    CHECK(pieces > 3);
    CHECK(read > 99'000);
    CHECK(tokenizer->Decode(ids) == text);
  }
}

TEST_CASE("the seed's tokenizers lose what the seed loses") {
  const Json json = {{"kind", "seed-word"},
                     {"vocab_size", 9},
                     {"unk", 0},
                     {"pad", 1},
                     {"space", 2},
                     {"newline", 3},
                     {"words", {"<unk>", "<pad>", " ", "\n", ".", "cat", "the", "\t"}}};
  const auto word = MakeTokenizer(json, "t");
  CHECK(word->Encode("the cat.\n") == Ids{6, 2, 5, 4, 3});
  CHECK(word->Encode("the\tdog\r\n") == Ids{6, 2, 0, 3});
  CHECK(word->Encode("cat!cat") == Ids{5, 5});  // unknown punctuation vanishes
  CHECK(word->Decode(Ids{6, 2, 5, 4, 8, -1}) == "the cat.");
  CHECK(!word->lossless());
  CHECK(Reload(*word)->Encode("the cat.\n") == Ids{6, 2, 5, 4, 3});

  Json ids = Json::array();
  for (int i = 0; i < 256; ++i) ids.push_back(i == 'b' ? 1 : 0);
  const auto chars =
      MakeTokenizer({{"kind", "seed-char"}, {"vocab_size", 3}, {"bytes", "ab"}, {"ids", ids}}, "t");
  CHECK(chars->Encode("abz") == Ids{0, 1, 0});
  CHECK(chars->Decode(Ids{0, 1, 2, 3}) == "ab?");
  CHECK(Reload(*chars)->Encode("abz") == Ids{0, 1, 0});
}

std::unique_ptr<Tokenizer> Llama(const std::vector<std::string>& tokens) {
  const std::string bytes = TokenizerFile(tokens);
  return MakeTokenizer(
      ParseLlama2cTokenizer(std::as_bytes(std::span(bytes)), "tokenizer.bin", 259 + tokens.size()),
      "tokenizer.bin");
}

// The definition, slowly: merge the best pair, leftmost first, until there is none.
Ids SlowEncode(const std::vector<std::string>& tokens, const std::string& text) {
  std::map<std::string, int32_t> ids;
  for (size_t i = 0; i < tokens.size(); ++i) ids.emplace(tokens[i], 259 + static_cast<int32_t>(i));
  struct Symbol {
    int32_t id;
    std::string text;  // empty for bytes
  };
  std::vector<Symbol> symbols;
  const std::string prefixed = text.empty() ? "" : " " + text;
  for (size_t i = 0; i < prefixed.size();) {
    size_t end = i + 1;
    while (end < prefixed.size() && end - i < 4 && (prefixed[end] & 0xC0) == 0x80) ++end;
    const std::string character = prefixed.substr(i, end - i);
    if (ids.contains(character)) {
      symbols.push_back({ids[character], character});
    } else {
      for (const char c : character) symbols.push_back({3 + static_cast<unsigned char>(c), ""});
    }
    i = end;
  }
  for (;;) {
    int32_t best = INT32_MAX;  // scores fall with ids
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      if (symbols[i].text.empty() || symbols[i + 1].text.empty()) continue;
      const auto found = ids.find(symbols[i].text + symbols[i + 1].text);
      if (found != ids.end() && found->second < best) best = found->second, at = i;
    }
    if (best == INT32_MAX) break;
    symbols[at] = {best, symbols[at].text + symbols[at + 1].text};
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
  Ids result;
  for (const Symbol& symbol : symbols) result.push_back(symbol.id);
  return result;
}

TEST_CASE("llama2c: merges by score, bytes for the rest, one leading space") {
  const std::vector<std::string> words = {"th", "he", "the", " the", "ca", "cat", " cat", "  ",
                                          " t", "é",  "t",   "h",    "e",  " ",   "c",    "a"};
  // The second cannot be cut at words: a token has a space inside.
  std::vector<std::string> phrases = words;
  phrases.push_back("e c");
  phrases.push_back("e ");
  for (const auto& tokens : {words, phrases}) {
    const auto tokenizer = Llama(tokens);
    CHECK(tokenizer->bos_id() == 1);
    CHECK(tokenizer->eos_id() == 2);
    CheckLossless(*tokenizer);
    CheckLossless(*Reload(*tokenizer));
    for (const std::string& text : HardTexts()) {
      CAPTURE(text);
      CHECK(tokenizer->Encode(text) == SlowEncode(tokens, text));
    }
  }
  const auto tokenizer = Llama(words);
  CHECK(tokenizer->Encode("the") == Ids{262});
  CHECK(tokenizer->Encode("\n") == Ids{259 + 13, 3 + '\n'});
  CHECK(tokenizer->Encode("").empty());
  CHECK(tokenizer->Decode(Ids{1, 262, 265}) == "the cat");
  // Only the first space after BOS goes; a decoder for the middle of a text keeps it.
  std::string text;
  const auto decoder = tokenizer->NewDecoder(false);
  decoder->Push(262, &text);
  CHECK(text == " the");
}

TEST_CASE("llama2c: a long text without spaces is quick") {
  const auto tokenizer = Llama({"a", "aa", "aaaa", "b", "ab"});
  std::string text(300'000, 'a');
  for (size_t i = 0; i < text.size(); i += 7) text[i] = 'b';
  CHECK(tokenizer->Decode(tokenizer->Encode(text)) == text);
}

TEST_CASE("llama2c: the largest tokenizer, of no UTF-8 at all, can be kept as JSON") {
  std::vector<std::string> tokens;
  while (tokens.size() < 200'000 - 259) tokens.push_back("\xff" + std::to_string(tokens.size()));
  const auto tokenizer = Llama(tokens);
  CHECK(Reload(*tokenizer)->TokenBytes(199'999) == tokens.back());
}

TEST_CASE("tokenizer.bin: every truncation and odd count is refused") {
  const std::string good = TokenizerFile({"a", "b", "ab"});
  const auto message = [](const std::string& bytes, uint64_t vocab) {
    return MessageOf<InputError>(
        [&] { ParseLlama2cTokenizer(std::as_bytes(std::span(bytes)), "t.bin", vocab); });
  };
  CHECK(message(good, 262).empty());
  for (size_t size = 0; size < good.size(); ++size)
    CHECK(!message(good.substr(0, size), 262).empty());
  CHECK(Contains(message(good + "x", 262), "after the last field"));
  CHECK(!message(good, 263).empty());
  CHECK(!message(good, 261).empty());
  CHECK(!message(good, 0).empty());
  CHECK(Contains(message(good, UINT64_MAX), "tokens"));
  std::string bad = good;
  bad[8] = bad[9] = bad[10] = bad[11] = '\xff';  // token 0's length
  CHECK(Contains(message(bad, 262), "token 0 length"));
  bad = good;
  bad[6] = '\x80', bad[7] = '\x7f';  // its score: infinity
  CHECK(Contains(message(bad, 262), "NaN or infinite"));
}

TEST_CASE("damaged tokenizer.json is refused with file and field") {
  const auto message = [](const Json& json) {
    return MessageOf<InputError>([&] { MakeTokenizer(json, "t.json"); });
  };
  CHECK(Contains(message(Json::array()), "t.json"));
  CHECK(Contains(message({{"kind", 3}}), "\"kind\""));
  CHECK(Contains(message({{"kind", "chr"}}), "char"));
  CHECK(Contains(message({{"kind", "char"}}), "\"bytes\""));
  CHECK(Contains(message({{"kind", "char"}, {"bytes", ""}}), "\"bytes\""));
  CHECK(Contains(message({{"kind", "char"}, {"bytes", "ba"}}), "sorted"));
  CHECK(Contains(message({{"kind", "char"}, {"bytes", "aa"}}), "different"));
  CHECK(Contains(message({{"kind", "word"}}), "\"words\""));
  CHECK(Contains(message({{"kind", "word"}, {"words", {1}}}), "\"words\""));
  CHECK(Contains(message({{"kind", "seed-word"}, {"words", Json::array()}}), "\"words\""));
  CHECK(Contains(message({{"kind", "seed-word"}, {"words", {"a"}}, {"vocab_size", 1}, {"unk", 1}}),
                 "\"unk\""));
  CHECK(Contains(message({{"kind", "seed-char"}, {"bytes", "a"}, {"vocab_size", 1}, {"ids", {0}}}),
                 "256"));
  CHECK(Contains(message({{"kind", "llama2c"}, {"tokens", {"a"}}, {"scores", {1}}}), "\"tokens\""));
}

TEST_CASE("streamed output never ends inside a UTF-8 sequence") {
  const std::string text = "aé日😀\xffz\xc3(\xe2\x82";
  Utf8Stream stream;
  std::string shown;
  for (const char c : text) {
    const std::string part = stream.Push(std::string(1, c));
    // Whole sequences only: the pieces as JSON strings, where they are UTF-8.
    if (!part.empty() && static_cast<unsigned char>(part.back()) >= 0xC2 &&
        static_cast<unsigned char>(part.back()) <= 0xF4) {
      FAIL("a lead byte by itself was shown");
    }
    shown += part;
    if (shown == "a\xc3" || shown == "aé\xe6" || shown == "aé\xe6\x97") FAIL("half a character");
  }
  CHECK(shown == text.substr(0, text.size() - 2));
  CHECK(shown + stream.Flush() == text);
  CHECK(stream.Flush().empty());
}

}  // namespace
}  // namespace lanewise::model
