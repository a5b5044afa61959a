#include "model/formats/seed_rnn.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "model/error.h"
#include "model/formats/byte_reader.h"
#include "model/formats/seed_rnn_layout.h"

namespace lanewise::model {
namespace {

constexpr int32_t kMostLayers = 4096;
constexpr int32_t kAnySize = INT32_MAX;
// More than any honest file has (the seed program stops at 32,767 words of 63 bytes).
constexpr int32_t kMostSeedWords = 200'000;
constexpr int32_t kLongestWord = 65'536;

bool BeginsWithAllBytes(const Json& words) {
  if (words.size() < 256) return false;
  for (int byte = 0; byte < 256; ++byte) {
    if (words[static_cast<size_t>(byte)] != BytesToJson(std::string(1, static_cast<char>(byte)))) {
      return false;
    }
  }
  return true;
}

class Reader {
 public:
  explicit Reader(MappedFile file) : file_(std::move(file)), reader_(file_.bytes(), file_.path()) {}

  ModelFile Read() {
    const auto magic = reader_.Take(8, "magic");
    const bool version1 = std::memcmp(magic.data(), kSeedMagic1.data(), 8) == 0;
    if (!version1 && std::memcmp(magic.data(), kSeedMagic2.data(), 8) != 0) {
      throw InputError(reader_.where() + ": offset 0: magic: is neither lrnnC01 nor lrnnC02");
    }
    model_.path = reader_.where();
    model_.format = version1 ? "lrnnC01" : "lrnnC02";
    model_.owner = file_.owner();
    ReadSizes();
    const int32_t type =
        version1 ? kSeedChar : reader_.ReadInt("tokenizer type", kSeedChar, kSeedWord);
    type == kSeedChar ? ReadCharTokenizer() : ReadWordTokenizer();
    ReadTensors();
    reader_.ExpectEnd();
    return std::move(model_);
  }

 private:
  void ReadSizes() {
    const auto read = [&](const char* field, int32_t highest) {
      return static_cast<uint64_t>(reader_.ReadInt(field, 1, highest));
    };
    sizes_.vocab = read("vocab_size", kAnySize);
    sizes_.layers = read("n_layer", kMostLayers);
    sizes_.dim = read("n_embd", kAnySize);
    sizes_.heads = read("n_head", kAnySize);
    sizes_.ctx = read("ctx_len", kAnySize);
    sizes_.rank = read("decay_lora_rank", kAnySize);
    const auto multiplier = reader_.Read<float>("ffn_multiplier");
    if (!std::isfinite(multiplier) || multiplier <= 0.0f) {
      reader_.Fail("ffn_multiplier", "must be positive and finite");
    }
    sizes_.slots = read("n_mem_slots", kAnySize);
    if (sizes_.dim % sizes_.heads != 0) {
      reader_.Fail("n_embd", std::to_string(sizes_.dim) + " is not divisible by n_head " +
                                 std::to_string(sizes_.heads));
    }
    model_.config = {
        {"model", "slot_rnn"},   {"vocab_size", sizes_.vocab}, {"layers", sizes_.layers},
        {"dim", sizes_.dim},     {"heads", sizes_.heads},      {"ctx", sizes_.ctx},
        {"slots", sizes_.slots}, {"decay_rank", sizes_.rank},  {"ffn_mult", multiplier}};
  }

  void ReadCharTokenizer() {
    const int32_t count = reader_.ReadInt("number of characters", 1, 256);
    if (static_cast<uint64_t>(count) > sizes_.vocab) {
      reader_.Fail("number of characters",
                   std::to_string(count) + " is beyond vocab_size " + std::to_string(sizes_.vocab));
    }
    const std::span<const std::byte> bytes =
        reader_.Take(static_cast<uint64_t>(count), "characters");
    Json ids = Json::array();
    for (int i = 0; i < 256; ++i) ids.push_back(reader_.ReadInt("byte to id", 0, count - 1));
    model_.tokenizer = {
        {"kind", "seed-char"},
        {"vocab_size", sizes_.vocab},
        {"bytes", BytesToJson({reinterpret_cast<const char*>(bytes.data()), bytes.size()})},
        {"ids", std::move(ids)}};
  }

  void ReadWordTokenizer() {
    const int32_t count = reader_.ReadInt("number of words", 1, kAnySize);
    if (static_cast<uint64_t>(count) > sizes_.vocab) {
      reader_.Fail("number of words",
                   std::to_string(count) + " is beyond vocab_size " + std::to_string(sizes_.vocab));
    }
    constexpr std::array<const char*, 4> kSpecial = {"unk", "pad", "space", "newline"};
    Json tokenizer = {{"kind", "seed-word"}, {"vocab_size", sizes_.vocab}};
    for (const char* name : kSpecial) tokenizer[name] = reader_.ReadInt(name, 0, count - 1);
    // Each word has a length at least: no count gets past the file's end.
    if (static_cast<uint64_t>(count) > reader_.remaining() / 4) {
      reader_.Fail("number of words", std::to_string(count) + " do not fit the " +
                                          std::to_string(reader_.remaining()) +
                                          " bytes that remain");
    }
    if (count > kMostSeedWords) {
      reader_.Fail("number of words",
                   std::to_string(count) + " is beyond " + std::to_string(kMostSeedWords));
    }
    Json words = Json::array();
    for (int32_t i = 0; i < count; ++i) {
      const int32_t length = reader_.ReadInt("length of a word", 0, kLongestWord);
      const auto word = reader_.Take(static_cast<uint64_t>(length), "word");
      words.push_back(BytesToJson({reinterpret_cast<const char*>(word.data()), word.size()}));
    }
    if (BeginsWithAllBytes(words)) {
      // One of ours: see WriteSeedRnn.
      words.erase(words.begin(), words.begin() + 256);
      model_.tokenizer = {{"kind", "word"}, {"words", std::move(words)}};
      return;
    }
    tokenizer["words"] = std::move(words);
    model_.tokenizer = std::move(tokenizer);
  }

  void ReadTensor(const SeedTensor& spec) {
    const uint64_t rows = spec.shape[0];
    const uint64_t cols = spec.shape.size() > 1 ? spec.shape[1] : 1;
    const size_t at = reader_.offset();
    const auto got_rows = reader_.ReadInt(spec.name + " rows", 0, kAnySize);
    const auto got_cols = reader_.ReadInt(spec.name + " cols", 0, kAnySize);
    if (static_cast<uint64_t>(got_rows) != rows || static_cast<uint64_t>(got_cols) != cols) {
      throw InputError(reader_.where() + ": offset " + std::to_string(at) + ": " + spec.name +
                       ": is " + std::to_string(got_rows) + " x " + std::to_string(got_cols) +
                       " where the sizes ask for " + std::to_string(rows) + " x " +
                       std::to_string(cols));
    }
    model_.tensors.push_back(
        MakeNamedTensor(reader_.TakeFloats(spec.name, spec.shape), file_.owner()));
  }

  // The width of the feed-forward layer is not in the header: it is ffn_gate's number of columns.
  void FindFfnWidth(size_t position) {
    ByteReader probe(file_.bytes(), reader_.where());
    probe.Take(position, "layers");
    for (const SeedTensor& spec : SeedLayerTensors(sizes_, 0)) {
      const auto rows = static_cast<uint64_t>(probe.ReadInt(spec.name + " rows", 0, kAnySize));
      const auto cols = static_cast<uint64_t>(probe.ReadInt(spec.name + " cols", 0, kAnySize));
      if (spec.name.ends_with(".ffn_gate")) {
        if (cols == 0) probe.Fail(spec.name, "has no columns");
        sizes_.ffn = cols;
        return;
      }
      probe.Take(rows * cols > probe.remaining() ? UINT64_MAX : rows * cols * 4, spec.name);
    }
  }

  void ReadTensors() {
    for (const SeedTensor& spec : SeedFirstTensors(sizes_)) ReadTensor(spec);
    const size_t at = reader_.offset();
    const auto layers = static_cast<uint64_t>(reader_.ReadInt("layer count", 0, kAnySize));
    if (layers != sizes_.layers) {
      throw InputError(reader_.where() + ": offset " + std::to_string(at) + ": layer count: is " +
                       std::to_string(layers) + " where n_layer is " +
                       std::to_string(sizes_.layers));
    }
    FindFfnWidth(reader_.offset());
    model_.config["ffn_dim"] = sizes_.ffn;
    for (uint64_t layer = 0; layer < layers; ++layer) {
      for (const SeedTensor& spec : SeedLayerTensors(sizes_, layer)) ReadTensor(spec);
    }
    for (const SeedTensor& spec : SeedLastTensors(sizes_)) ReadTensor(spec);
  }

  MappedFile file_;
  ByteReader reader_;
  SeedSizes sizes_;
  ModelFile model_;
};

}  // namespace

bool IsSeedRnn(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) return false;
  return std::memcmp(bytes.data(), kSeedMagic1.data(), 8) == 0 ||
         std::memcmp(bytes.data(), kSeedMagic2.data(), 8) == 0;
}

ModelFile ParseSeedRnn(MappedFile file) { return Reader(std::move(file)).Read(); }

ModelFile ReadSeedRnn(FileSystem& files, const std::string& path) {
  return ParseSeedRnn(MappedFile(files, path));
}

}  // namespace lanewise::model
