#include "model/param_set.h"

#include <utility>

#include "runtime/check.h"

namespace lanewise::model {

namespace {
constexpr size_t kAlignFloats = 16;
}

ParamBlock ParamSet::AddBlock(std::string name, size_t rows, size_t cols, bool decay) {
  LW_CHECK(rows > 0 && cols > 0, name, ": empty parameter [", rows, ", ", cols, "]");
  ParamBlock block{std::move(name), size_, rows, cols, decay};
  size_ += (block.Count() + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
  blocks_.push_back(block);
  return block;
}

ParamBlock ParamSet::AddVector(std::string name, size_t size) {
  const ParamBlock block = AddBlock(name, 1, size, /*decay=*/false);
  params_.push_back({.name = std::move(name),
                     .offset = block.offset,
                     .rows = 1,
                     .cols = size,
                     .stride = size,
                     .is_vector = true});
  return block;
}

ParamBlock ParamSet::AddMatrix(std::string name, size_t rows, size_t cols) {
  const ParamBlock block = AddBlock(name, rows, cols, /*decay=*/true);
  params_.push_back({.name = std::move(name),
                     .offset = block.offset,
                     .rows = rows,
                     .cols = cols,
                     .stride = cols});
  return block;
}

ParamBlock ParamSet::AddColumns(std::string name, size_t rows, const std::vector<Part>& parts) {
  size_t cols = 0;
  for (const Part& part : parts) cols += part.size;
  const ParamBlock block = AddBlock(std::move(name), rows, cols, /*decay=*/true);
  size_t col = 0;
  for (const Part& part : parts) {
    params_.push_back({.name = part.name,
                       .offset = block.offset + col,
                       .rows = rows,
                       .cols = part.size,
                       .stride = cols});
    col += part.size;
  }
  return block;
}

ParamBlock ParamSet::AddRows(std::string name, size_t cols, const std::vector<Part>& parts) {
  size_t rows = 0;
  for (const Part& part : parts) rows += part.size;
  const ParamBlock block = AddBlock(std::move(name), rows, cols, /*decay=*/true);
  size_t row = 0;
  for (const Part& part : parts) {
    params_.push_back({.name = part.name,
                       .offset = block.offset + row * cols,
                       .rows = part.size,
                       .cols = cols,
                       .stride = cols});
    row += part.size;
  }
  return block;
}

const Param* ParamSet::Find(std::string_view name) const {
  for (const Param& param : params_) {
    if (param.name == name) return &param;
  }
  return nullptr;
}

const Param& ParamSet::At(std::string_view name) const {
  const Param* param = Find(name);
  LW_CHECK(param != nullptr, "no parameter is called ", name);
  return *param;
}

size_t ParamSet::Count() const {
  size_t count = 0;
  for (const Param& param : params_) count += param.Count();
  return count;
}

runtime::TensorId Use(runtime::Graph& graph, const ParamBlock& block, bool half) {
  return graph.Parameter(block.name, block.offset, block.rows, block.cols, block.cols,
                         /*trained=*/true,
                         half ? runtime::DType::kBFloat16 : runtime::DType::kFloat32);
}

}  // namespace lanewise::model
