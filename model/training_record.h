// What a training leaves behind: checkpoints, log.jsonl, loss.svg.
#ifndef LANEWISE_MODEL_TRAINING_RECORD_H_
#define LANEWISE_MODEL_TRAINING_RECORD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/data.h"
#include "model/model.h"
#include "model/run_log.h"
#include "model/tokenizer.h"
#include "model/train_options.h"
#include "model/train_step.h"
#include "model/trainer.h"

namespace lanewise::model {

// Everything beside the arrays that makes a resumed run equal to an undisturbed one. Random numbers
// need no state: they are functions of seed and step.
struct TrainingState {
  int64_t step = 0;
  uint64_t tokens = 0;
  double seconds = 0;
  double train_loss = 0;
  std::optional<double> best_val_loss;
  DataPosition position;
  uint64_t data_hash = 0;
};

// The arrays: flat buffers of the model's parameters, and the carried state.
struct TrainingArrays {
  std::span<float> weights, first_moments, second_moments;
  std::vector<TrainStep::StateTensor> state;
};

// Fills the arrays from a checkpoint. InputError names the tensor or field that is missing or of
// another size.
TrainingState ReadTrainingState(const Checkpoint& checkpoint, const ParamSet& params,
                                const TrainingArrays& arrays);
// The plan that a checkpoint was trained with.
TrainPlan ReadTrainPlan(const Checkpoint& checkpoint);

class TrainingRecord {
 public:
  // Goes on after step `done` (0: from the start); later records of an interrupted run are dropped
  // from the log.
  TrainingRecord(FileSystem& files, const std::string& run_folder, const TrainPlan& plan,
                 int64_t done);

  void Step(const StepReport& report) { log_.Step(report); }
  void Evaluate(const EvalReport& report);
  void Finish(const FinishReport& report);
  // Returns the folder of the checkpoint.
  std::string Save(const TrainPlan& plan, const Model& model, const Tokenizer& tokenizer,
                   const TrainingState& state, const TrainingArrays& arrays,
                   std::optional<double> val_loss);

 private:
  void DrawLoss();

  FileSystem& files_;
  std::string run_folder_;
  std::string title_;
  CheckpointStore store_;
  RunLog log_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TRAINING_RECORD_H_
