// The picture of a training: loss.svg.
#ifndef LANEWISE_MODEL_LOSS_PLOT_H_
#define LANEWISE_MODEL_LOSS_PLOT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lanewise::model {

struct LossPoint {
  int64_t step = 0;
  double loss = 0;  // nats; NaN and infinity are gaps
};

struct LossPlotData {
  std::string title = {};                  // "slot_rnn, 4 layers × 128, 0.7M parameters"
  std::string subtitle = {};               // "2.4M tokens in 58 s"; may be empty
  std::vector<LossPoint> train = {};       // by step
  std::vector<LossPoint> validation = {};  // by step
};

// A complete SVG document: every step's loss, faint, and its running mean; the evaluations, the
// best of them marked; values at the end in the legend. Losses far above the rest (the first steps)
// are cut off at the upper border. Its size does not grow with the number of steps.
std::string RenderLossPlot(const LossPlotData& data);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_LOSS_PLOT_H_
