// log.jsonl: what happened in a run, one JSON object a line, each written when it happens.
//   a step:         step, loss, lr, grad_norm, tokens, tokens_per_second, mfu, seconds
//                   (and "skipped": true where nothing was updated)
//   an evaluation:  step, val_loss, val_bits_per_byte, val_tokens, and whole, best, sample where
//                   they apply
//   the end:        steps, tokens, seconds, train_loss, final_val_loss, final_val_bits_per_byte,
//                   best_val_loss, peak_memory_bytes, finished
// What is not finite is null.
#ifndef LANEWISE_MODEL_RUN_LOG_H_
#define LANEWISE_MODEL_RUN_LOG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/file.h"
#include "model/loss_plot.h"
#include "model/trainer.h"

namespace lanewise::model {

// Writes a run's log. IoError when the disk refuses.
class RunLog {
 public:
  // Starts a new log, or goes on after `last_step` > 0: records of later steps, of an earlier end,
  // and lines that are no records (the last one may be half written) are removed first, atomically.
  RunLog(FileSystem& files, const std::string& path, int64_t last_step);

  void Step(const StepReport& report);  // does not allocate
  void Evaluate(const EvalReport& report);
  void Finish(const FinishReport& report);
  // Makes what was written survive a power cut.
  void Sync() { file_.Sync(); }

 private:
  File file_;
};

// A log as far as it can be read: lines that are no records are left out, null is NaN.
struct RunLogContent {
  std::vector<LossPoint> train;
  std::vector<LossPoint> validation;
  int64_t last_step = 0;
  uint64_t tokens = 0;  // trained at the last step
  double seconds = 0;   // of training at the last step
  FinishReport end;     // as it was written; else not finished
};

// Empty where the file is missing.
RunLogContent ReadRunLog(FileSystem& files, const std::string& path);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_RUN_LOG_H_
