// Root-mean-square normalization of rows. Single-threaded; does not allocate.
//
// y[r,c] = x[r,c] rstd[r] w[c], rstd[r] = 1/sqrt(mean_c x[r,c]^2 + eps).
#ifndef LANEWISE_KERNELS_RMS_NORM_H_
#define LANEWISE_KERNELS_RMS_NORM_H_

#include <span>

#include "kernels/view.h"

namespace lanewise::kernels {

// Errors, element by element: of y relative to |y|, of dx to rstd (1 + |xhat|) max_c |w dy|
// (+ |residual|), of dw to the sum of |dy xhat| over the rows (dw before the call is one more
// term). For C <= 1024 and R <= 64; with more, they grow at worst in proportion. Range: sum_c
// x[r,c]^2 < 1e38, eps >= 1e-30. Where the sum overflows, rstd and y are 0.
inline constexpr double kRmsNormTolerance = 4e-6;

// y [R,C] may be x. w [C]. rstd [R] is kept for the backward pass, or empty.
void RmsNormForward(Mat<const float> x, std::span<const float> w, float eps, Mat<float> y,
                    std::span<float> rstd);

// dx [R,C] = rstd (g - xhat mean_c (g xhat)) [+ residual], g = w dy, xhat = x rstd; overwritten,
// may be dy, residual or x. An empty residual is none. dw [C] += sum_r dy xhat, row by row; it may
// be empty.
void RmsNormBackward(Mat<const float> x, std::span<const float> w, std::span<const float> rstd,
                     Mat<const float> dy, Mat<float> dx, std::span<float> dw,
                     Mat<const float> residual = {});

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_RMS_NORM_H_
