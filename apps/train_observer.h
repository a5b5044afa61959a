// What a person sees of a training: a live line on a terminal, else a line now and then.
#ifndef LANEWISE_APPS_TRAIN_OBSERVER_H_
#define LANEWISE_APPS_TRAIN_OBSERVER_H_

#include <chrono>
#include <string>

#include "apps/terminal.h"
#include "model/trainer.h"

namespace lanewise::apps {

class TrainPrinter : public model::TrainObserver {
 public:
  void OnNotice(const std::string& sentence) override;
  void OnStep(const model::StepReport& report) override;
  void OnEvaluateProgress(int64_t step, double done) override;
  void OnEvaluate(const model::EvalReport& report) override;

 private:
  void PlainLine();
  double SmoothMfu() const;

  model::StepReport last_;
  double smooth_rate_ = 0;
  TimeLeft evaluation_;
  std::chrono::steady_clock::time_point printed_{};
  bool any_ = false;
};

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_TRAIN_OBSERVER_H_
