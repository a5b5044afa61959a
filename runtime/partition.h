// How operations cut their work: by shape alone, never by the number of threads.
#ifndef LANEWISE_RUNTIME_PARTITION_H_
#define LANEWISE_RUNTIME_PARTITION_H_

#include <algorithm>
#include <cstddef>

namespace lanewise::runtime {

// [0, total) in `count` near-equal pieces; piece i is [Begin(i), Begin(i + 1)).
struct Pieces {
  size_t total = 0;
  size_t count = 1;
  size_t Begin(size_t i) const { return total / count * i + std::min(i, total % count); }
  size_t Size(size_t i) const { return Begin(i + 1) - Begin(i); }
};

// Rows in pieces of about `elements` elements each, so that one piece is worth a task, at most
// `most`.
inline Pieces CutRows(size_t rows, size_t cols, size_t elements = size_t{1} << 15,
                      size_t most = size_t{1} << 16) {
  const size_t wanted = rows * cols / std::max<size_t>(elements, 1);
  return {rows, std::clamp<size_t>(wanted, 1, std::max<size_t>(1, std::min(most, rows)))};
}

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_PARTITION_H_
