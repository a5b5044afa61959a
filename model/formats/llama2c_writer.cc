#include <algorithm>
#include <cmath>

#include "model/error.h"
#include "model/formats/llama2c.h"
#include "model/formats/llama2c_layout.h"

namespace lanewise::model {
namespace {

Llama2cSizes ReadSizes(const ModelFile& model) {
  const auto size = [&](const char* field) {
    return static_cast<uint64_t>(GetInteger(model.config, field, 1, INT32_MAX, model.path));
  };
  Llama2cSizes sizes;
  sizes.dim = size("dim");
  sizes.hidden = size("hidden_dim");
  sizes.layers = size("layers");
  sizes.heads = size("heads");
  sizes.kv_heads = size("kv_heads");
  sizes.vocab = size("vocab_size");
  sizes.seq = size("ctx");
  sizes.tied = GetBool(model.config, "tied", model.path);
  return sizes;
}

// The format has no place for these: programs that read it use llama2.c's constants.
void CheckConstants(const ModelFile& model) {
  const double eps = GetNumber(model.config, "norm_eps", model.path);
  const double theta = GetNumber(model.config, "rope_theta", model.path);
  if (std::fabs(eps - 1e-5) > 1e-10 || theta != 10000.0) {
    throw UsageError(model.path +
                     ": llama2.c files stand for norm_eps 1e-5 and rope_theta 10000; "
                     "this model has others");
  }
}

void WriteFloats(const NamedTensor& tensor, File* file) {
  std::vector<float> part(size_t{1} << 16);
  for (uint64_t first = 0; first < tensor.Elements(); first += part.size()) {
    const auto count = std::min<uint64_t>(part.size(), tensor.Elements() - first);
    const std::span<float> values(part.data(), static_cast<size_t>(count));
    tensor.read(first, values);
    file->Write(values.data(), values.size_bytes());
  }
}

// The cosine and sine tables that version 0 carries, one after the other, [seq, head_dim / 2] each.
void WriteTables(const Llama2cSizes& sizes, File* file) {
  const uint64_t half = sizes.head_dim() / 2;
  std::vector<float> row(static_cast<size_t>(half));
  for (const bool sine : {false, true}) {
    for (uint64_t position = 0; position < sizes.seq; ++position) {
      for (uint64_t i = 0; i < half; ++i) {
        const double frequency = std::pow(
            10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(sizes.head_dim()));
        const double angle = static_cast<double>(position) * frequency;
        row[i] = static_cast<float>(sine ? std::sin(angle) : std::cos(angle));
      }
      file->Write(row.data(), row.size() * sizeof(float));
    }
  }
}

void WriteHeader(const Llama2cSizes& sizes, int version, File* file) {
  const auto vocab = static_cast<int32_t>(sizes.vocab);
  const int32_t fields[7] = {
      static_cast<int32_t>(sizes.dim),      static_cast<int32_t>(sizes.hidden),
      static_cast<int32_t>(sizes.layers),   static_cast<int32_t>(sizes.heads),
      static_cast<int32_t>(sizes.kv_heads), version == 0 && !sizes.tied ? -vocab : vocab,
      static_cast<int32_t>(sizes.seq)};
  std::string header;
  const auto append = [&](const auto& value) {
    header.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  if (version == 1) {
    append(kLlama2cMagic);
    append(int32_t{1});
  }
  append(fields);
  if (version == 1) {
    header += static_cast<char>(sizes.tied ? 1 : 0);
    header.resize(kLlama2cHeader, '\0');
  }
  file->Write(header);
}

}  // namespace

void WriteLlama2c(FileSystem& files, const std::string& path, const ModelFile& model, int version) {
  const std::string kind = GetString(model.config, "model", model.path);
  if (kind != "llama") {
    throw UsageError(model.path + ": a " + kind +
                     " model cannot be stored in llama2.c's format (llama can)");
  }
  if (version != 0 && version != 1)
    throw UsageError("llama2.c files are written as version 0 or 1");
  CheckConstants(model);
  const Llama2cSizes sizes = ReadSizes(model);

  // Everything is looked up before the file is begun; nullptr stands for the tables.
  std::vector<const NamedTensor*> order;
  const auto groups = version == 0 ? Llama2cVersion0(sizes) : Llama2cVersion1(sizes);
  for (const Llama2cGroup& group : groups) {
    if (version == 0 && group.name == "output") order.push_back(nullptr);
    for (uint64_t layer = 0; layer < (group.per_layer ? sizes.layers : 1); ++layer) {
      const std::string name = group.TensorName(layer);
      const NamedTensor* tensor = model.Find(name);
      if (tensor == nullptr) throw InputError(model.path + ": tensor \"" + name + "\" is missing");
      if (tensor->shape != group.shape) {
        throw InputError(model.path + ": tensor \"" + name + "\": shape " +
                         ShapeText(tensor->shape) + " where the sizes ask for " +
                         ShapeText(group.shape));
      }
      order.push_back(tensor);
    }
  }
  if (version == 0 && sizes.tied) order.push_back(nullptr);

  MakeDirectories(files, ParentPath(ResolveOutput(files, path)));
  WriteFileAtomically(files, path, [&](File& file) {
    WriteHeader(sizes, version, &file);
    for (const NamedTensor* tensor : order) {
      tensor == nullptr ? WriteTables(sizes, &file) : WriteFloats(*tensor, &file);
    }
  });
}

}  // namespace lanewise::model
