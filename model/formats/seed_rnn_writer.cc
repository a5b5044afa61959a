#include <array>
#include <cmath>
#include <utility>

#include "model/error.h"
#include "model/formats/seed_rnn.h"
#include "model/formats/seed_rnn_layout.h"

namespace lanewise::model {
namespace {

// Appends fields to a file through a buffer.
class FieldWriter {
 public:
  explicit FieldWriter(File* file) : file_(file) {}
  void Int(uint64_t value) { Value(static_cast<int32_t>(value)); }
  template <typename T>
  void Value(T value) {
    Raw({reinterpret_cast<const char*>(&value), sizeof value});
  }
  void Raw(std::string_view bytes) {
    buffer_ += bytes;
    if (buffer_.size() > (1u << 20)) Flush();
  }
  void Flush() {
    file_->Write(buffer_);
    buffer_.clear();
  }

 private:
  File* file_;
  std::string buffer_;
};

// The tokenizer's part of the file, made before anything is written.
struct SeedTokenizer {
  int32_t type = kSeedChar;
  std::string characters;
  std::array<int32_t, 256> ids = {};
  std::array<int32_t, 4> special = {};  // unk, pad, space, newline
  std::vector<std::string> words;
};

SeedTokenizer CharTokenizer(const Json& json, const std::string& where) {
  SeedTokenizer result;
  if (json.at("kind") == "byte") {
    for (int byte = 0; byte < 256; ++byte) result.characters += static_cast<char>(byte);
  } else {
    result.characters = BytesFromJson(json.at("bytes"), where + ": bytes");
  }
  if (json.contains("ids")) {
    for (size_t i = 0; i < 256; ++i) result.ids[i] = json["ids"].at(i).get<int32_t>();
  } else {
    for (size_t i = 0; i < result.characters.size(); ++i) {
      result.ids[static_cast<unsigned char>(result.characters[i])] = static_cast<int32_t>(i);
    }
  }
  return result;
}

SeedTokenizer WordTokenizer(const Json& json, const std::string& where) {
  SeedTokenizer result;
  result.type = kSeedWord;
  if (json.at("kind") == "seed-word") {
    constexpr std::array<const char*, 4> kNames = {"unk", "pad", "space", "newline"};
    for (size_t i = 0; i < kNames.size(); ++i) {
      result.special[i] = json.at(kNames[i]).get<int32_t>();
    }
  } else {
    // New vocabularies begin with the 256 bytes, by which the reader knows them. NUL stands in for
    // unknown words and padding, which they do not have.
    result.special = {0, 0, ' ', '\n'};
    for (int byte = 0; byte < 256; ++byte) {
      result.words.emplace_back(1, static_cast<char>(byte));
    }
  }
  for (const Json& word : json.at("words")) {
    result.words.push_back(BytesFromJson(word, where + ": words"));
  }
  return result;
}

SeedTokenizer MakeSeedTokenizer(const Json& json, const std::string& where) {
  if (json.is_null()) {
    throw InputError(where +
                     ": has no tokenizer, which the seed's format needs; put the model's "
                     "tokenizer.json in it, or convert it into a folder");
  }
  const std::string kind = GetString(json, "kind", where + ": tokenizer");
  if (kind == "byte" || kind == "char" || kind == "seed-char") return CharTokenizer(json, where);
  if (kind == "word" || kind == "seed-word") return WordTokenizer(json, where);
  throw UsageError(where + ": tokenizer \"" + kind +
                   "\" cannot be stored in the seed's format (byte, char and word can)");
}

void WriteTokenizer(const SeedTokenizer& tokenizer, FieldWriter* writer) {
  writer->Value(tokenizer.type);
  if (tokenizer.type == kSeedChar) {
    writer->Int(tokenizer.characters.size());
    writer->Raw(tokenizer.characters);
    for (const int32_t id : tokenizer.ids) writer->Value(id);
    return;
  }
  writer->Int(tokenizer.words.size());
  for (const int32_t id : tokenizer.special) writer->Value(id);
  for (const std::string& word : tokenizer.words) {
    writer->Int(word.size());
    writer->Raw(word);
  }
}

SeedSizes ReadSizes(const Json& config, const std::string& where) {
  const auto size = [&](const char* field) {
    return static_cast<uint64_t>(GetInteger(config, field, 1, INT32_MAX, where));
  };
  SeedSizes sizes;
  sizes.vocab = size("vocab_size");
  sizes.layers = size("layers");
  sizes.dim = size("dim");
  sizes.heads = size("heads");
  sizes.ctx = size("ctx");
  sizes.rank = size("decay_rank");
  sizes.slots = size("slots");
  sizes.ffn = size("ffn_dim");
  return sizes;
}

// The multiplier that gives this width as the seed program computes it, int(dim * multiplier).
float FfnMultiplier(const Json& config, const SeedSizes& sizes) {
  const auto dim = static_cast<float>(sizes.dim);
  if (config.contains("ffn_mult") && config["ffn_mult"].is_number()) {
    const auto multiplier = config["ffn_mult"].get<float>();
    if (std::floor(dim * multiplier) == static_cast<float>(sizes.ffn)) return multiplier;
  }
  return (static_cast<float>(sizes.ffn) + 0.5f) / dim;
}

// The model's tensor of this name and shape.
const NamedTensor& FindTensor(const ModelFile& model, const SeedTensor& spec) {
  const NamedTensor* tensor = model.Find(spec.name);
  if (tensor == nullptr) throw InputError(model.path + ": tensor \"" + spec.name + "\" is missing");
  if (tensor->shape != spec.shape) {
    throw InputError(model.path + ": tensor \"" + spec.name + "\": shape " +
                     ShapeText(tensor->shape) + " where the sizes ask for " +
                     ShapeText(spec.shape));
  }
  return *tensor;
}

void WriteTensor(const NamedTensor& tensor, FieldWriter* writer) {
  writer->Int(tensor.shape[0]);
  writer->Int(tensor.shape.size() > 1 ? tensor.shape[1] : 1);
  MakeSource(tensor).produce([&](std::span<const std::byte> bytes) {
    writer->Raw({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  });
}

}  // namespace

void WriteSeedRnn(FileSystem& files, const std::string& path, const ModelFile& model) {
  const std::string kind = GetString(model.config, "model", model.path);
  if (kind != "slot_rnn") {
    throw UsageError(model.path + ": a " + kind +
                     " model cannot be stored in the seed's format (slot_rnn can)");
  }
  const SeedSizes sizes = ReadSizes(model.config, model.path);
  const SeedTokenizer tokenizer = MakeSeedTokenizer(model.tokenizer, model.path);

  // Everything is looked up before the file is begun.
  std::vector<const NamedTensor*> first, layers, last;
  for (const SeedTensor& spec : SeedFirstTensors(sizes)) first.push_back(&FindTensor(model, spec));
  for (uint64_t layer = 0; layer < sizes.layers; ++layer) {
    for (const SeedTensor& spec : SeedLayerTensors(sizes, layer)) {
      layers.push_back(&FindTensor(model, spec));
    }
  }
  for (const SeedTensor& spec : SeedLastTensors(sizes)) last.push_back(&FindTensor(model, spec));

  MakeDirectories(files, ParentPath(ResolveOutput(files, path)));
  WriteFileAtomically(files, path, [&](File& file) {
    FieldWriter writer(&file);
    writer.Raw(kSeedMagic2);
    for (const uint64_t size :
         {sizes.vocab, sizes.layers, sizes.dim, sizes.heads, sizes.ctx, sizes.rank}) {
      writer.Int(size);
    }
    writer.Value(FfnMultiplier(model.config, sizes));
    writer.Int(sizes.slots);
    WriteTokenizer(tokenizer, &writer);
    for (const NamedTensor* tensor : first) WriteTensor(*tensor, &writer);
    writer.Int(sizes.layers);
    for (const NamedTensor* tensor : layers) WriteTensor(*tensor, &writer);
    for (const NamedTensor* tensor : last) WriteTensor(*tensor, &writer);
    writer.Flush();
  });
}

}  // namespace lanewise::model
