// The one list of a model's parameters. Weights, gradients and moments are flat buffers with this
// layout; the optimizer, checkpoints, initialization and gradient checks iterate it.
#ifndef LANEWISE_MODEL_PARAM_SET_H_
#define LANEWISE_MODEL_PARAM_SET_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/view.h"
#include "runtime/graph.h"

namespace lanewise::model {

using kernels::Mat;

// A named tensor: element (r, c) is at offset + r * stride + c of a flat buffer.
struct Param {
  std::string name;
  size_t offset = 0;
  size_t rows = 0;  // a vector has one row
  size_t cols = 0;
  size_t stride = 0;
  bool is_vector = false;

  size_t Count() const { return rows * cols; }
  template <typename T>
  Mat<T> In(T* buffer) const {
    return {buffer + offset, rows, cols, stride};
  }
  // What users read: [n] for a vector, [rows, cols] for a matrix.
  std::vector<size_t> Shape() const {
    return is_vector ? std::vector<size_t>{cols} : std::vector<size_t>{rows, cols};
  }
};

// Several parameters side by side in one matrix, so that one matmul serves them all.
struct ParamBlock {
  std::string name;
  size_t offset = 0;
  size_t rows = 0;
  size_t cols = 0;
  bool decay = false;  // weight decay applies (matrices)

  size_t Count() const { return rows * cols; }
};

class ParamSet {
 public:
  struct Part {
    std::string name;
    size_t size;  // its columns (AddColumns) or rows (AddRows)
  };

  ParamBlock AddVector(std::string name, size_t size);
  ParamBlock AddMatrix(std::string name, size_t rows, size_t cols);
  // One matrix [rows, sum of sizes]; part i is a range of columns.
  ParamBlock AddColumns(std::string name, size_t rows, const std::vector<Part>& parts);
  // One matrix [sum of sizes, cols]; part i is a range of rows.
  ParamBlock AddRows(std::string name, size_t cols, const std::vector<Part>& parts);

  // In the order in which they were added: the order of checkpoints and listings.
  const std::vector<Param>& params() const { return params_; }
  const std::vector<ParamBlock>& blocks() const { return blocks_; }
  const Param* Find(std::string_view name) const;
  // Throws CheckError when there is none.
  const Param& At(std::string_view name) const;

  // Floats of a flat buffer: parameters and the padding that aligns blocks to 64 bytes.
  size_t buffer_size() const { return size_; }
  // Parameters proper.
  size_t Count() const;

 private:
  ParamBlock AddBlock(std::string name, size_t rows, size_t cols, bool decay);

  std::vector<Param> params_;
  std::vector<ParamBlock> blocks_;
  size_t size_ = 0;
};

// The block as a parameter of a graph; `half`: the copy that is rounded to bf16.
runtime::TensorId Use(runtime::Graph& graph, const ParamBlock& block, bool half = false);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_PARAM_SET_H_
