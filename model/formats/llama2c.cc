#include "model/formats/llama2c.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "model/error.h"
#include "model/formats/byte_reader.h"
#include "model/formats/llama2c_layout.h"

namespace lanewise::model {
namespace {

constexpr int32_t kMostLayers = 4096;

// Version 0's sizes from its first 28 bytes; nothing where they cannot be any.
std::optional<Llama2cSizes> ReadSizes(std::span<const std::byte> bytes) {
  if (bytes.size() < 28) return std::nullopt;
  int32_t field[7];
  std::memcpy(field, bytes.data(), sizeof field);
  if (field[5] == INT32_MIN) return std::nullopt;
  Llama2cSizes sizes;
  sizes.tied = field[5] > 0;
  field[5] = std::abs(field[5]);
  if (std::any_of(std::begin(field), std::end(field), [](int32_t x) { return x <= 0; }) ||
      field[2] > kMostLayers || field[0] % field[3] != 0 || field[3] % field[4] != 0) {
    return std::nullopt;
  }
  sizes.dim = static_cast<uint64_t>(field[0]);
  sizes.hidden = static_cast<uint64_t>(field[1]);
  sizes.layers = static_cast<uint64_t>(field[2]);
  sizes.heads = static_cast<uint64_t>(field[3]);
  sizes.kv_heads = static_cast<uint64_t>(field[4]);
  sizes.vocab = static_cast<uint64_t>(field[5]);
  sizes.seq = static_cast<uint64_t>(field[6]);
  return sizes;
}

// Length of a version 0 file of these sizes, as a double: it need not fit an integer.
double Version0Length(const Llama2cSizes& sizes) {
  const uint64_t pairs = sizes.head_dim() / 2;
  double floats = static_cast<double>(sizes.seq) * static_cast<double>(pairs) * 2.0;
  for (const Llama2cGroup& group : Llama2cVersion0(sizes)) {
    double elements = group.per_layer ? static_cast<double>(sizes.layers) : 1.0;
    for (const uint64_t size : group.shape) elements *= static_cast<double>(size);
    floats += elements;
  }
  return 28.0 + 4.0 * floats;
}

class Reader {
 public:
  explicit Reader(MappedFile file) : file_(std::move(file)), reader_(file_.bytes(), file_.path()) {}

  ModelFile Read() {
    model_.path = reader_.where();
    model_.owner = file_.owner();
    uint32_t magic = 0;
    if (file_.bytes().size() >= 4) std::memcpy(&magic, file_.bytes().data(), 4);
    if (magic == kLlama2cMagic) {
      ReadVersion1Or2();
    } else {
      ReadVersion0();
    }
    reader_.ExpectEnd();
    const Llama2cSizes& s = sizes_;
    model_.config = {{"model", "llama"},       {"vocab_size", s.vocab}, {"layers", s.layers},
                     {"dim", s.dim},           {"heads", s.heads},      {"kv_heads", s.kv_heads},
                     {"hidden_dim", s.hidden}, {"ctx", s.seq},          {"tied", s.tied},
                     {"norm_eps", 1e-5},       {"rope_theta", 10000.0}};
    return std::move(model_);
  }

 private:
  void ReadHeader() {
    const auto read = [&](const char* field, int32_t lowest, int32_t highest) {
      return reader_.ReadInt(field, lowest, highest);
    };
    sizes_.dim = static_cast<uint64_t>(read("dim", 1, INT32_MAX));
    sizes_.hidden = static_cast<uint64_t>(read("hidden_dim", 1, INT32_MAX));
    sizes_.layers = static_cast<uint64_t>(read("n_layers", 1, kMostLayers));
    sizes_.heads = static_cast<uint64_t>(read("n_heads", 1, INT32_MAX));
    sizes_.kv_heads = static_cast<uint64_t>(read("n_kv_heads", 1, INT32_MAX));
    const int32_t vocab = read("vocab_size", -INT32_MAX, INT32_MAX);
    if (vocab == 0) reader_.Fail("vocab_size", "is 0");
    sizes_.tied = vocab > 0;
    sizes_.vocab = static_cast<uint64_t>(std::abs(vocab));
    sizes_.seq = static_cast<uint64_t>(read("seq_len", 1, INT32_MAX));
    if (sizes_.dim % sizes_.heads != 0 || sizes_.head_dim() % 2 != 0) {
      reader_.Fail("dim", std::to_string(sizes_.dim) + " does not give " +
                              std::to_string(sizes_.heads) + " heads of the same even width");
    }
    if (sizes_.heads % sizes_.kv_heads != 0) {
      reader_.Fail("n_heads", std::to_string(sizes_.heads) + " is not divisible by n_kv_heads " +
                                  std::to_string(sizes_.kv_heads));
    }
  }

  void ReadVersion0() {
    model_.format = "llama2c-v0";
    ReadHeader();
    for (const Llama2cGroup& group : Llama2cVersion0(sizes_)) {
      // The rotation tables stand before the head.
      if (group.name == "output") SkipTables();
      ReadGroup(group);
    }
    if (sizes_.tied) SkipTables();
  }

  void SkipTables() {
    reader_.Take(sizes_.seq * (sizes_.head_dim() / 2) * 2 * sizeof(float), "rotation tables");
  }

  void ReadVersion1Or2() {
    reader_.Take(4, "magic");
    const int32_t version = reader_.ReadInt("version", 1, 2);
    model_.format = "llama2c-v" + std::to_string(version);
    ReadHeader();
    if (!sizes_.tied) reader_.Fail("vocab_size", "is negative");
    const auto shared = reader_.Read<uint8_t>("shared head");
    if (shared > 1) reader_.Fail("shared head", "is neither 0 nor 1");
    sizes_.tied = shared == 1;
    uint64_t group_size = 0;
    if (version == 2) {
      group_size = static_cast<uint64_t>(reader_.ReadInt("group size", 1, INT32_MAX));
    }
    for (const std::byte b : reader_.Take(kLlama2cHeader - reader_.offset(), "header")) {
      if (b != std::byte{0}) reader_.Fail("header", "the rest up to byte 256 is not zero");
    }
    for (const Llama2cGroup& group : Llama2cVersion1(sizes_)) {
      if (version == 2 && !group.is_norm) {
        ReadQuantizedGroup(group, group_size);
      } else {
        ReadGroup(group);
      }
    }
  }

  void ReadGroup(const Llama2cGroup& group) {
    for (uint64_t layer = 0; layer < (group.per_layer ? sizes_.layers : 1); ++layer) {
      model_.tensors.push_back(
          MakeNamedTensor(reader_.TakeFloats(group.TensorName(layer), group.shape), file_.owner()));
    }
  }

  void ReadQuantizedGroup(const Llama2cGroup& group, uint64_t group_size) {
    for (uint64_t layer = 0; layer < (group.per_layer ? sizes_.layers : 1); ++layer) {
      const std::string name = group.TensorName(layer);
      const auto elements = CheckedElements(group.shape);
      if (!elements || *elements % group_size != 0) {
        reader_.Fail(name, "shape " + ShapeText(group.shape) + " is not whole groups of " +
                               std::to_string(group_size));
      }
      const auto values = reader_.Take(*elements, name);
      const size_t at = reader_.offset();
      const TensorView scales = reader_.TakeFloats(name + " scales", {*elements / group_size});
      CheckScales(scales, at);
      NamedTensor tensor{name, group.shape, {}};
      tensor.read = [values, scales, group_size, owner = file_.owner()](uint64_t first,
                                                                        std::span<float> out) {
        if (first > values.size() || out.size() > values.size() - first) {
          throw std::out_of_range("tensor elements beyond its end");
        }
        float scale = 0.0f;
        for (size_t i = 0; i < out.size(); ++i) {
          const uint64_t index = first + i;
          if (i == 0 || index % group_size == 0) {
            scales.ReadFloats(index / group_size, {&scale, 1});
          }
          out[i] = scale * static_cast<float>(std::to_integer<int8_t>(values[index]));
        }
      };
      model_.tensors.push_back(std::move(tensor));
    }
  }

  // A scale may be finite and its products not.
  void CheckScales(const TensorView& scales, size_t at) {
    for (uint64_t i = 0; i < scales.Elements(); ++i) {
      float scale = 0.0f;
      scales.ReadFloats(i, {&scale, 1});
      if (!std::isfinite(scale * 128.0f)) {
        throw InputError(reader_.where() + ": offset " + std::to_string(at + i * 4) + ": " +
                         scales.name + ": entry " + std::to_string(i) + " gives infinite weights");
      }
    }
  }

  MappedFile file_;
  ByteReader reader_;
  Llama2cSizes sizes_;
  ModelFile model_;
};

}  // namespace

bool IsLlama2c(std::span<const std::byte> bytes) {
  uint32_t magic = 0;
  if (bytes.size() >= 4) std::memcpy(&magic, bytes.data(), 4);
  if (magic == kLlama2cMagic) return true;
  const auto sizes = ReadSizes(bytes);
  return sizes && Version0Length(*sizes) == static_cast<double>(bytes.size());
}

ModelFile ParseLlama2c(MappedFile file) { return Reader(std::move(file)).Read(); }

ModelFile ReadLlama2c(FileSystem& files, const std::string& path) {
  return ParseLlama2c(MappedFile(files, path));
}

}  // namespace lanewise::model
