// Inverted dropout whose mask is a function of (key, element) and is never stored.
// Single-threaded; does not allocate.
#ifndef LANEWISE_KERNELS_DROPOUT_H_
#define LANEWISE_KERNELS_DROPOUT_H_

#include <cstdint>

#include "kernels/random.h"
#include "kernels/view.h"

namespace lanewise::kernels {

// y[r,c] = x[r,c] / (1 - p) if kept, else 0; y may be x. Element (r,c) uses value (first_row + r) C
// + c of the key's stream: split rows as you like and pass the number of the first one. It is kept
// if that value is at least p 2^32, rounded down, p in [0, 1). Dropped elements are 0 even where x
// is NaN.
void DropoutForward(Mat<const float> x, float p, const RandomKey& key, uint64_t first_row,
                    Mat<float> y);

// dx = dy * mask / (1 - p) with the same key and first_row; dx is overwritten and may be dy.
void DropoutBackward(Mat<const float> dy, float p, const RandomKey& key, uint64_t first_row,
                     Mat<float> dx);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_DROPOUT_H_
