// Layer normalization of rows. Single-threaded; does not allocate.
//
// y[r,c] = xhat[r,c] w[c] + b[c], xhat[r,c] = (x[r,c] - mean[r]) rstd[r],
// rstd[r] = 1/sqrt(mean_c (x[r,c] - mean[r])^2 + eps).
#ifndef LANEWISE_KERNELS_LAYER_NORM_H_
#define LANEWISE_KERNELS_LAYER_NORM_H_

#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Errors, element by element, with size[r] = 1 + rstd[r] max_c |x[r,c]|, since x - mean cancels:
// of y relative to |w| size + |b|, of dx to rstd size (1 + |xhat|) max_c |w dy| (+ |residual|), of
// dw to the sum of |dy| size over the rows, of db to that of |dy| (dw and db before the call count
// as one more row). For C <= 1024 and R <= 64; with more, they grow at worst in proportion. Range:
// sum_c x[r,c]^2 < 1e38, eps >= 1e-30. Where that overflows, rstd is 0 and y is b as long as
// sum_c |x[r,c]| is finite; beyond, y may be NaN.
inline constexpr double kLayerNormTolerance = 6e-6;

// y [R,C] may be x. w, b [C]. mean, rstd [R] are kept for the backward pass, or empty.
void LayerNormForward(Mat<const float> x, std::span<const float> w, std::span<const float> b,
                      float eps, Mat<float> y, std::span<float> mean, std::span<float> rstd);

// dx [R,C] = rstd (g - mean_c g - xhat mean_c (g xhat)) [+ residual], g = w dy; overwritten, may be
// dy, residual or x. An empty residual is none. dw [C] += sum_r dy xhat and db [C] += sum_r dy, row
// by row; either may be empty (a frozen parameter).
void LayerNormBackward(Mat<const float> x, std::span<const float> w, std::span<const float> mean,
                       std::span<const float> rstd, Mat<const float> dy, Mat<float> dx,
                       std::span<float> dw, std::span<float> db, Mat<const float> residual = {});

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_LAYER_NORM_H_
