// The engine behind kernels::Matmul for products whose operands are rounded to bf16. Its file is
// compiled for more SIMD targets than the others, those with bf16 dot products.
#ifndef LANEWISE_KERNELS_MATMUL_BF16_H_
#define LANEWISE_KERNELS_MATMUL_BF16_H_

#include <cstddef>

#include "kernels/matmul.h"

namespace lanewise::kernels {

// As MatmulTileSize, MatmulScratchBytes and Matmul, with the unit MatmulBf16Unit(): dot or amx.
MatmulTile MatmulBf16TileSize();
size_t MatmulBf16ScratchBytes(size_t m, size_t n, size_t k);
void MatmulBf16(const MatmulArgs& args, const MatmulRange& range, void* scratch);

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_MATMUL_BF16_H_
