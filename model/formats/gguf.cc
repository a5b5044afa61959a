#include "model/formats/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "model/error.h"
#include "model/llama/llama.h"
#include "model/tokenizer.h"

namespace lanewise::model {
namespace {

constexpr uint64_t kAlignment = 32;
constexpr uint32_t kVersion = 3;
// Types of values and of tensors.
constexpr uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9;
constexpr uint32_t kTensorF32 = 0, kTensorBF16 = 30;
constexpr uint32_t kAllF32 = 0, kMostlyBF16 = 32;
// Types of tokens.
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUnused = 5, kByte = 6;

uint64_t AlignUp(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

// The keys and values before the tensors, little-endian.
class Values {
 public:
  void Add(std::string_view key, uint32_t value) { AddScalar(key, kUint32, value); }
  void Add(std::string_view key, float value) { AddScalar(key, kFloat32, value); }
  void Add(std::string_view key, bool value) {
    AddScalar(key, kBool, static_cast<uint8_t>(value ? 1 : 0));
  }
  void Add(std::string_view key, std::string_view text) {
    Begin(key, kString);
    Append(&bytes_, text);
  }
  void Add(std::string_view key, const std::vector<std::string>& texts) {
    BeginArray(key, kString, texts.size());
    for (const std::string& text : texts) Append(&bytes_, text);
  }
  void Add(std::string_view key, const std::vector<float>& numbers) {
    BeginArray(key, kFloat32, numbers.size());
    for (const float number : numbers) Append(&bytes_, number);
  }
  void Add(std::string_view key, const std::vector<int32_t>& numbers) {
    BeginArray(key, kInt32, numbers.size());
    for (const int32_t number : numbers) Append(&bytes_, number);
  }
  const std::string& bytes() const { return bytes_; }
  uint64_t count() const { return count_; }

  template <typename T>
  static void Append(std::string* out, const T& value) {
    if constexpr (std::is_convertible_v<T, std::string_view>) {
      const std::string_view text = value;
      Append(out, static_cast<uint64_t>(text.size()));
      out->append(text);
    } else {
      out->append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }

 private:
  void Begin(std::string_view key, uint32_t type) {
    Append(&bytes_, key);
    Append(&bytes_, type);
    ++count_;
  }
  template <typename T>
  void AddScalar(std::string_view key, uint32_t type, T value) {
    Begin(key, type);
    Append(&bytes_, value);
  }
  void BeginArray(std::string_view key, uint32_t type, uint64_t size) {
    Begin(key, kArray);
    Append(&bytes_, type);
    Append(&bytes_, size);
  }

  std::string bytes_;
  uint64_t count_ = 0;
};

// A vocabulary of SentencePiece's kind, which llama.cpp calls "llama".
struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;
  int32_t bos = 0, eos = 0, unknown = 0;
  bool begins_with_bos = false, begins_with_space = false;

  void Push(std::string text, float score, int32_t type) {
    // llama.cpp does not load a file with two equal tokens.
    if (text.empty() || !seen_.insert(text).second) {
      text = "<unused_" + std::to_string(texts.size()) + ">";
      type = kUnused;
      score = 0;
    }
    texts.push_back(std::move(text));
    scores.push_back(score);
    types.push_back(type);
  }

 private:
  std::unordered_set<std::string> seen_;
};

std::string ByteText(unsigned byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
}

// Spaces are U+2581 there.
std::string WithoutSpaces(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == ' ' ? std::string("\xE2\x96\x81") : std::string(1, c);
  return out;
}

Vocabulary Llama2cVocabulary(const Tokenizer& tokenizer, const Json& json) {
  Vocabulary v;
  v.bos = tokenizer.bos_id();
  v.eos = tokenizer.eos_id();
  v.begins_with_bos = v.begins_with_space = true;
  const int32_t first_byte = v.eos + 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const float score = json["scores"][static_cast<size_t>(id)].get<float>();
    if (id == v.bos) {
      v.Push("<s>", score, kControl);
    } else if (id == v.eos) {
      v.Push("</s>", score, kControl);
    } else if (id == v.unknown) {
      v.Push("<unk>", score, kUnknown);
    } else if (id < first_byte + 256) {
      v.Push(ByteText(static_cast<unsigned>(id - first_byte)), score, kByte);
    } else {
      v.Push(WithoutSpaces(tokenizer.TokenBytes(id)), score, kNormal);
    }
  }
  return v;
}

// Tokens of single bytes. These have no special tokens, and llama.cpp would take the first three
// ids for some: they are one that no text has.
Vocabulary ByteVocabulary(const Tokenizer& tokenizer) {
  Vocabulary v;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string bytes = tokenizer.TokenBytes(id);
    const auto byte = static_cast<unsigned char>(bytes.empty() ? 0 : bytes[0]);
    if (bytes.empty() || byte == 0xFF) v.bos = v.eos = v.unknown = id;
    if (bytes == " ") {
      v.Push(WithoutSpaces(bytes), 0, kNormal);
    } else {
      v.Push(bytes.empty() ? "" : ByteText(byte), 0, kByte);
    }
  }
  return v;
}

void AddTokenizer(const ModelFile& model, size_t vocab_size, Values* values) {
  const std::string prefix = "tokenizer.ggml.";
  if (model.tokenizer.is_null()) {
    values->Add(prefix + "model", std::string_view("none"));
    return;
  }
  const std::unique_ptr<Tokenizer> tokenizer = MakeTokenizer(model.tokenizer, model.path);
  const std::string_view kind = tokenizer->kind();
  const bool merges = kind == "llama2c" || kind == "bpe";
  if (!merges && kind != "byte" && kind != "char") {
    throw UsageError(model.path + ": GGUF files have no tokenizer like this model's, " +
                     std::string(kind) + "; train one with --tokenizer bpe, byte or char");
  }
  Vocabulary v =
      merges ? Llama2cVocabulary(*tokenizer, model.tokenizer) : ByteVocabulary(*tokenizer);
  while (v.texts.size() < vocab_size) v.Push("", 0, kUnused);  // a padded vocabulary
  values->Add(prefix + "model", std::string_view("llama"));
  values->Add(prefix + "pre", std::string_view("default"));
  values->Add(prefix + "tokens", v.texts);
  values->Add(prefix + "scores", v.scores);
  values->Add(prefix + "token_type", v.types);
  values->Add(prefix + "bos_token_id", static_cast<uint32_t>(v.bos));
  values->Add(prefix + "eos_token_id", static_cast<uint32_t>(v.eos));
  values->Add(prefix + "unknown_token_id", static_cast<uint32_t>(v.unknown));
  values->Add(prefix + "add_bos_token", v.begins_with_bos);
  values->Add(prefix + "add_eos_token", false);
  values->Add(prefix + "add_space_prefix", v.begins_with_space);
}

void AddSizes(const LlamaConfig& config, bool bf16, Values* values) {
  const auto add = [&](const std::string& key, size_t size) {
    values->Add("llama." + key, static_cast<uint32_t>(size));
  };
  values->Add("general.architecture", std::string_view("llama"));
  values->Add("general.file_type", bf16 ? kMostlyBF16 : kAllF32);
  add("vocab_size", config.vocab_size);
  add("context_length", config.ctx);
  add("embedding_length", config.dim);
  add("block_count", config.layers);
  add("feed_forward_length", config.hidden_dim);
  add("attention.head_count", config.heads);
  add("attention.head_count_kv", config.kv_heads);
  add("rope.dimension_count", config.HeadDim());
  values->Add("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  values->Add("llama.attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_eps));
}

// Rows of wq and wk are in the order of adjacent pairs in both formats.
std::vector<std::pair<std::string, std::string>> TensorNames(const LlamaConfig& config) {
  constexpr std::array<std::pair<const char*, const char*>, 9> kOfLayer = {
      {{"attention_norm", "attn_norm"},
       {"wq", "attn_q"},
       {"wk", "attn_k"},
       {"wv", "attn_v"},
       {"wo", "attn_output"},
       {"ffn_norm", "ffn_norm"},
       {"w1", "ffn_gate"},
       {"w2", "ffn_down"},
       {"w3", "ffn_up"}}};
  std::vector<std::pair<std::string, std::string>> names = {{"tok_embeddings", "token_embd.weight"},
                                                            {"norm", "output_norm.weight"}};
  if (!config.tied) names.emplace_back("output", "output.weight");
  for (size_t layer = 0; layer < config.layers; ++layer) {
    const std::string n = std::to_string(layer) + ".";
    for (const auto& [ours, theirs] : kOfLayer) {
      names.emplace_back("layers." + n + ours, "blk." + n + theirs + ".weight");
    }
  }
  return names;
}

}  // namespace

void WriteGguf(FileSystem& files, const std::string& path, const ModelFile& model, bool bf16) {
  const std::string kind = GetString(model.config, "model", model.path);
  if (kind != "llama") {
    throw UsageError(model.path + ": a " + kind + " model cannot be stored as GGUF (llama can)");
  }
  const LlamaConfig config = LlamaConfig::FromJson(model.config, model.path);
  Values values;
  AddSizes(config, bf16, &values);
  AddTokenizer(model, config.vocab_size, &values);

  std::vector<TensorSource> sources;
  std::string infos;
  uint64_t offset = 0;
  for (const auto& [ours, theirs] : TensorNames(config)) {
    const NamedTensor* tensor = model.Find(ours);
    if (tensor == nullptr) throw InputError(model.path + ": tensor \"" + ours + "\" is missing");
    const bool matrix = tensor->shape.size() > 1;
    sources.push_back(MakeSource(*tensor, matrix && bf16));
    Values::Append(&infos, theirs);
    Values::Append(&infos, static_cast<uint32_t>(tensor->shape.size()));
    for (auto size = tensor->shape.rbegin(); size != tensor->shape.rend(); ++size) {
      Values::Append(&infos, *size);
    }
    Values::Append(&infos, matrix && bf16 ? kTensorBF16 : kTensorF32);
    Values::Append(&infos, offset);
    offset += AlignUp(sources.back().ByteSize());
  }

  std::string header = "GGUF";
  Values::Append(&header, kVersion);
  Values::Append(&header, static_cast<uint64_t>(sources.size()));
  Values::Append(&header, values.count());
  header += values.bytes() + infos;
  header.resize(static_cast<size_t>(AlignUp(header.size())), '\0');
  MakeDirectories(files, ParentPath(ResolveOutput(files, path)));
  WriteFileAtomically(files, path, [&](File& file) {
    file.Write(header);
    for (const TensorSource& source : sources) {
      source.produce(
          [&](std::span<const std::byte> bytes) { file.Write(bytes.data(), bytes.size()); });
      const uint64_t size = source.ByteSize();
      file.Write(std::string(static_cast<size_t>(AlignUp(size) - size), '\0'));
    }
  });
}

}  // namespace lanewise::model
