// lanewise train: a model from text.
#include <algorithm>
#include <cmath>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "apps/train_flags.h"
#include "apps/train_observer.h"
#include "model/checkpoint.h"
#include "model/error.h"
#include "model/train_text.h"
#include "model/training_record.h"
#include "runtime/machine.h"

namespace lanewise::apps {

namespace {

using model::FileSystem;
using model::InputError;
using model::Json;
using model::TrainPlan;
using model::UsageError;

class TrainCommand : public Command {
 public:
  std::string name() const override { return "train"; }
  std::string summary() const override { return "train a model on text"; }
  std::string usage() const override {
    return "--data FILE --out DIR [OPTIONS]\n       lanewise train --resume DIR [OPTIONS]";
  }
  std::string description() const override {
    return "Trains a language model on the text and keeps it in the folder DIR: the best and the "
           "newest "
           "checkpoints, log.jsonl with a line for each step, and loss.svg. Ctrl-C, SIGTERM "
           "or a closed terminal finishes "
           "the step, saves and prints the command that goes on; a second one quits at once.\n"
           "--resume goes on where a run stopped, with the same bits as if it never had. It may "
           "change "
           "the length, the intervals of evaluation and saving, and the threads.";
  }
  std::vector<std::string> examples() const override {
    return {"train --data book.txt --out runs/book --minutes 10",
            "train --data texts/ --out runs/big --layers 6 --dim 256 --steps 5000",
            "train --data book.txt --out runs/llama --model llama --preset 15M --epochs 3",
            "train --resume runs/book --minutes 30"};
  }

  void Declare(Options& options) override;
  int Run(FileSystem& files, const Options& options) override;

 private:
  // A run folder, locked, with what it will hold.
  struct Prepared {
    std::unique_ptr<model::RunLock> lock;
    std::optional<model::Checkpoint> checkpoint;  // to resume from
    std::optional<model::ModelFile> from;
    model::TrainText text;
    TrainPlan plan;
  };

  void CheckOptions(FileSystem& files, const Options& options);
  void LockRun(FileSystem& files, Prepared* run) const;
  void CheckFreshFolder(FileSystem& files, bool has_been_run) const;
  void PrepareFresh(FileSystem& files, double gflops, Prepared* run);
  void MakeFolder(FileSystem& files, Prepared* run) const;
  model::Checkpoint LoadLatest(FileSystem& files, const std::string& folder) const;
  void PrepareResume(FileSystem& files, const Options& options, Prepared* run);
  void Lengthen(const model::TrainText& text, TrainPlan* plan) const;
  bool NothingLeft(FileSystem& files, const Prepared& run) const;
  model::FinishReport Train(FileSystem& files, model::Trainer* trainer) const;
  static std::string Advice(const model::Trainer& trainer, const model::FinishReport& report);
  void PrintSummary(FileSystem& files, const model::Trainer& trainer,
                    const model::FinishReport& report) const;
  Json ToJson(const TrainPlan& plan, const model::FinishReport& report) const;
  std::string ResumeCommand() const;

  std::string positional_, out_, from_;
  bool resume_ = false;
  TrainFlags flags_;
  CommonOptions common_;
};

void TrainCommand::Declare(Options& options) {
  // The folder after --resume, as in `train --resume DIR`.
  options.Positional("RUN", &positional_, "with --resume: the run's folder, as --out", false);
  options.Group("Run");
  options.Text("out", "DIR", &out_, "folder of the run; made if it is missing");
  Option& resume = options.Flag("resume", &resume_, "go on with the run in DIR");
  resume.only_command_line = true;
  resume.assign = [this](const std::string& text) {
    if (text != "true") throw UsageError("write --resume " + ShellQuoted(text) + ", without the =");
    resume_ = true;
  };
  options.Text("from", "MODEL", &from_,
               "begin with the weights and tokenizer of another model, with a fresh optimizer");
  options.ConfigFile();
  flags_.Declare(options);
  common_.Declare(options, /*json=*/true, /*profile=*/true);
}

// Files that are gone once they are read: a run could not be resumed.
bool ReadOnce(FileSystem& files, const std::string& path) {
  return path == "-" || path == "/dev/stdin" || path.starts_with("/dev/fd/") ||
         model::GetInfo(files, path).kind == model::FileInfo::Kind::kOther;
}

void TrainCommand::CheckOptions(FileSystem& files, const Options& options) {
  if (!from_.empty() && !resume_) CheckFromOptions(options);
  flags_.Check();
  if (!positional_.empty()) {
    if (!resume_) {
      throw UsageError("'" + positional_ + "' is one argument too many; text is given with --data");
    }
    if (!out_.empty() && out_ != positional_) {
      throw UsageError("--resume " + positional_ + " and --out " + out_ + " are two folders");
    }
    out_ = positional_;
  }
  if (out_.empty()) throw UsageError("--out DIR is missing: the folder for the run");
  model::FileInfo out;  // without an identity where it cannot be seen: writing says why
  if (files.Info(out_, &out) < 0) out = {};
  for (const std::string& path : flags_.data()) {
    if (out.kind == model::FileInfo::Kind::kDirectory &&
        out.identity != model::FileInfo().identity &&
        model::GetInfo(files, path).identity == out.identity) {
      throw UsageError("--out " + out_ +
                       " is the folder of texts itself, whose texts the run's files would be; give "
                       "the run one of its own, such as --out " +
                       model::JoinPath(out_, "run"));
    }
    if (!ReadOnce(files, path)) continue;
    throw UsageError("--data " + path + " is " +
                     (path == "-" ? "standard input" : "a pipe or device") +
                     ", which --resume could not read again; save it in a file first");
  }
  if (!resume_ && flags_.data().empty()) {
    throw UsageError("--data FILE is missing: the text to train on");
  }
}

void TrainCommand::LockRun(FileSystem& files, Prepared* run) const {
  if (!run->lock) run->lock = std::make_unique<model::RunLock>(files, out_);
}

// Files of the names that a run writes would be lost, but for what a run without a checkpoint left.
void TrainCommand::CheckFreshFolder(FileSystem& files, bool has_been_run) const {
  const auto latest = model::CheckpointStore(files, out_, 1).Latest();
  if (latest) {
    throw UsageError(out_ + " holds a run (step " + std::to_string(latest->step) +
                     "): add --resume to go on with it, or choose another --out");
  }
  std::vector<const char*> names = {"config.json", "model.safetensors", "tokenizer.json"};
  if (!has_been_run) names.insert(names.end(), {"log.jsonl", "loss.svg"});
  for (const char* name : names) {
    if (model::IsFile(files, model::JoinPath(out_, name))) {
      throw UsageError(out_ + " holds a " + name + " that is not of a run; choose another --out");
    }
  }
}

void TrainCommand::PrepareFresh(FileSystem& files, double gflops, Prepared* run) {
  // A folder that may not be entered cannot be written to either.
  model::FileInfo info, inside;
  int error = files.Info(out_, &info);
  if (error >= 0) error = files.Info(model::JoinPath(out_, ".lock"), &inside);
  if (error < 0) model::ThrowIoError("write into the folder", out_, error);
  const bool exists = info.kind == model::FileInfo::Kind::kDirectory;
  if (!exists && info.kind != model::FileInfo::Kind::kMissing) {
    throw UsageError("--out " + out_ + " is not a folder");
  }
  if (exists) {
    // A run that is being trained is locked, whatever it holds so far.
    const bool has_been_run = model::IsFile(files, model::JoinPath(out_, ".lock"));
    if (has_been_run) LockRun(files, run);
    CheckFreshFolder(files, has_been_run);
  }
  Json tokenizer, config;
  if (!from_.empty()) {
    run->from = model::OpenModel(files, from_);
    tokenizer = run->from->tokenizer;
    config = run->from->config;
    if (tokenizer.is_null()) model::ThrowNoTokenizer(*run->from);
  }
  const model::TrainOptions& options = flags_.options();
  const EndOnSignal reading;
  run->text = model::ReadTrainText(files, flags_.data(), options.val_fraction, options.tokenizer,
                                   flags_.MaxVocab(), tokenizer, ReadingProgress());
  Stderr().ClearProgress();
  run->plan = MakePlan(flags_, run->text, config, gflops);
}

// Only once nothing is left to refuse: a folder without a run would be in the way.
void TrainCommand::MakeFolder(FileSystem& files, Prepared* run) const {
  model::MakeDirectories(files, out_);
  LockRun(files, run);
  CheckFreshFolder(files, /*has_been_run=*/true);
}

// A damaged checkpoint is not passed over in silence: what was trained since would be lost.
model::Checkpoint TrainCommand::LoadLatest(FileSystem& files, const std::string& folder) const {
  try {
    return model::LoadCheckpoint(files, folder);
  } catch (const InputError& error) {
    if (model::CheckpointStore(files, out_, 1).List().size() < 2) throw;
    throw InputError(std::string(error.what()) + "; delete " + folder +
                     " to go on from the checkpoint before it");
  }
}

// For those who name a checkpoint in the place of its run: which that is. Else empty.
std::string RunAround(FileSystem& files, const std::string& folder) {
  std::string run = folder;
  for (int level = 0; level < 2; ++level) {
    const std::string name = model::BaseName(run);
    run = name == "." || name == ".." ? model::JoinPath(run, "..") : model::ParentPath(run);
    if (!model::CheckpointStore(files, run, 1).Latest()) continue;
    return "; it is part of a run, which goes on from its newest checkpoint: lanewise train "
           "--resume " +
           ShellQuoted(run);
  }
  return "";
}

void TrainCommand::PrepareResume(FileSystem& files, const Options& options, Prepared* run) {
  if (!model::IsDirectory(files, out_)) throw InputError(out_ + ": no such folder to resume");
  // First, where a run has been: another process may be before its first save, or about to end. A
  // folder that holds none stays as it is.
  if (model::IsFile(files, model::JoinPath(out_, ".lock"))) LockRun(files, run);
  const model::CheckpointStore store(files, out_, 1);
  std::optional<model::CheckpointInfo> latest = store.Latest();
  if (!latest) {
    throw InputError(out_ + ": holds no checkpoint, so there is nothing to resume" +
                     RunAround(files, out_));
  }
  LockRun(files, run);
  if (const auto newest = store.Latest()) latest = newest;
  run->checkpoint = LoadLatest(files, latest->folder);
  const model::Checkpoint& checkpoint = *run->checkpoint;
  const TrainPlan stored = model::ReadTrainPlan(checkpoint);
  const std::string kind = checkpoint.tokenizer.value("kind", "");
  run->plan = ResumePlan(options, flags_, stored, kind);
  const std::vector<std::string>& paths = flags_.data().empty() ? stored.data : flags_.data();
  if (paths.empty())
    throw UsageError("--data FILE is missing: this run does not say where its text is");
  for (const std::string& path : paths) {
    if (!flags_.data().empty() ||
        model::GetInfo(files, path).kind != model::FileInfo::Kind::kMissing) {
      continue;
    }
    throw InputError(path + ": the text of this run is not there, seen from this folder; " +
                     "say where it is: --data FILE");
  }
  const EndOnSignal reading;
  run->text = model::ReadTrainText(files, paths, stored.val_fraction, kind, 0, checkpoint.tokenizer,
                                   ReadingProgress());
  Stderr().ClearProgress();
  run->plan.data = paths;
  Lengthen(run->text, &run->plan);
}

void TrainCommand::Lengthen(const model::TrainText& text, TrainPlan* plan) const {
  const model::TrainOptions& given = flags_.options();
  // Intervals that were chosen for the old length are chosen again for the new one.
  if (given.steps || given.tokens || given.epochs || given.minutes) {
    const bool chosen = plan->eval_every == (plan->steps + 9) / 10;
    if (!given.save_every && chosen && plan->save_every == plan->eval_every) plan->save_every = -1;
    if (!given.eval_every && chosen) plan->eval_every = -1;
  }
  if (given.steps) plan->steps = *given.steps;
  const uint64_t size = text.data.train.size();
  if (given.tokens) plan->steps = plan->StepsFor(static_cast<double>(*given.tokens), size);
  if (given.epochs) {
    plan->steps = plan->StepsFor(*given.epochs * static_cast<double>(size - 1), size);
  }
  if (given.minutes) {
    plan->steps = 0;  // as many as fit, measured again
    plan->minutes = *given.minutes;
  }
}

// Whether the run has reached its length already.
bool TrainCommand::NothingLeft(FileSystem& files, const Prepared& run) const {
  if (!run.checkpoint || run.plan.steps == 0) return false;
  const auto done = static_cast<int64_t>(run.checkpoint->step);
  if (done < run.plan.steps) return false;
  // It may have been stopped in the evaluations after its last step.
  model::FinishReport end = model::ReadRunLog(files, model::JoinPath(out_, "log.jsonl")).end;
  if (done == run.plan.steps && !end.finished) return false;
  const model::TrainOptions& given = flags_.options();
  // The very length that was asked for is no mistake: the run was stopped after its last save.
  if (done > run.plan.steps && (given.steps || given.tokens || given.epochs)) {
    const std::string name = given.steps ? "--steps" : given.tokens ? "--tokens" : "--epochs";
    throw UsageError(out_ + " is at step " + std::to_string(done) + " already, and " + name +
                     " asks for " + std::to_string(run.plan.steps) + " in all; ask for more");
  }
  end.step = done;
  end.finished = true;
  if (common_.json()) WriteJson(ToJson(run.plan, end));
  Stderr().Line(out_ + " is finished: step " + std::to_string(done) + " of " +
                std::to_string(run.plan.steps) + ".\nTo train it further, say how long: " +
                ResumeCommand() + " --steps " + std::to_string(2 * done));
  return true;
}

std::string TrainCommand::ResumeCommand() const {
  return "lanewise train --resume " + ShellQuoted(out_);
}

int TrainCommand::Run(FileSystem& files, const Options& options) {
  common_.Apply(files);
  CheckOptions(files, options);
  const auto scheduler = common_.MakeScheduler();
  double gflops = runtime::MeasurePeakGflops(*scheduler, 0.2).undisturbed;
  Prepared run;
  resume_ ? PrepareResume(files, options, &run) : PrepareFresh(files, gflops, &run);
  if (NothingLeft(files, run)) return 0;
  for (const std::string& notice : run.text.notices) Stderr().Line("Note: " + notice);
  if (run.plan.dtype == "bf16")
    gflops = runtime::MeasurePeakGflops(*scheduler, 0.2, true).undisturbed;

  TrainPrinter printer;
  const model::TrainerSetup setup{.files = &files,
                                  .run_folder = out_,
                                  .scheduler = scheduler.get(),
                                  .profiler = common_.profiler(),
                                  .peak_gflops = gflops,
                                  .observer = &printer,
                                  .stop = &StopSignal(),
                                  .stop_after = flags_.options().stop_after.value_or(0)};
  model::Trainer trainer(run.plan, *run.text.tokenizer, run.text.data, setup);
  if (!resume_) MakeFolder(files, &run);
  if (run.checkpoint) {
    trainer.Resume(*run.checkpoint);
  } else if (run.from) {
    trainer.InitializeFrom(*run.from);
  } else {
    trainer.Initialize();
  }
  if (!Stderr().quiet()) {
    SayOnStop("\nStopping after this step; once more: at once, without saving\n");
  }
  if (!resume_ && !options.Given("dtype")) SuggestBf16();
  for (const std::string& line : DescribePlan({.plan = &trainer.plan(),
                                               .text = &run.text,
                                               .memory = trainer.memory(),
                                               .threads = scheduler->threads(),
                                               .machine_gflops = gflops})) {
    Stderr().Line(line);
  }
  Stderr().Line("Run       " + out_ +
                (run.checkpoint ? ", goes on after step " + std::to_string(run.checkpoint->step)
                                : std::string()) +
                "; Ctrl-C stops it and saves\n");
  run.checkpoint.reset();
  run.from.reset();

  const model::FinishReport report = Train(files, &trainer);
  SayOnStop(nullptr);
  Stderr().ClearProgress();
  if (common_.json()) WriteJson(ToJson(trainer.plan(), report));
  PrintSummary(files, trainer, report);
  common_.WriteProfile(files, gflops);
  return report.finished ? 0 : SignalExitCode();
}

// A disk that is full leaves what was saved before.
model::FinishReport TrainCommand::Train(FileSystem& files, model::Trainer* trainer) const {
  try {
    return trainer->Run();
  } catch (const model::IoError& error) {
    const auto latest = model::CheckpointStore(files, out_, 1).Latest();
    throw model::IoError(
        error.what() + (latest ? "; the checkpoint of step " + std::to_string(latest->step) +
                                     " is intact, go on from it with: " + ResumeCommand()
                               : std::string("; no checkpoint was saved before")),
        error.error_number());
  }
}

Json TrainCommand::ToJson(const TrainPlan& plan, const model::FinishReport& report) const {
  const auto optional = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json();
  };
  return {{"out", out_},
          {"finished", report.finished},
          {"step", report.step},
          {"steps", plan.steps},
          {"tokens", report.tokens},
          {"parameters", model::CountParameters(plan.model)},
          {"seconds", report.seconds},
          {"train_loss", optional(report.train_loss)},
          {"val_loss", optional(report.val_loss)},
          {"val_bits_per_byte", optional(report.val_bits_per_byte)},
          {"best_val_loss", optional(report.best_val_loss)},
          {"peak_memory_bytes", report.peak_memory_bytes}};
}

// What the losses say about the training, if that is nothing good.
std::string TrainCommand::Advice(const model::Trainer& trainer, const model::FinishReport& report) {
  const double guessing = std::log(trainer.plan().model.value("vocab_size", 1.0));
  if (report.train_loss > 1.05 * guessing) {
    return "the loss is above that of guessing, " + FormatFixed(guessing, 2) +
           ": the training diverged, or has hardly begun; a lower --lr may help (it was " +
           FormatShort(trainer.plan().lr) + ")";
  }
  // Of a part of the split: a little says nothing.
  if (!report.last_val_loss || !report.best_val_loss) return "";
  if (*report.last_val_loss < 1.05 * *report.best_val_loss) return "";
  return "validation was better before the end: the model has begun to learn the text by heart. "
         "generate and eval take the best checkpoint; more text, --dropout or fewer steps help";
}

void TrainCommand::PrintSummary(FileSystem& files, const model::Trainer& trainer,
                                const model::FinishReport& report) const {
  const std::string run = ShellQuoted(out_);
  std::string line = "\n";
  if (report.finished) {
    line += "Done: ";
  } else if (SignalExitCode() != 0) {
    line += "Stopped by " + std::string(StopSignalName()) + ": ";
  } else {
    line += "Stopped as asked: ";
  }
  line += FormatNumber(static_cast<uint64_t>(report.step), "step") + ", " +
          FormatCount(static_cast<double>(report.tokens)) + " tokens, " +
          FormatDuration(report.seconds) + ", peak memory " +
          model::FormatBytes(report.peak_memory_bytes);
  Stderr().Line(line);
  line = "Loss: ";
  line += report.train_loss ? "train " + FormatFixed(*report.train_loss, 4)
                            : std::string("none before the first step");
  if (report.val_loss) line += ", validation " + FormatFixed(*report.val_loss, 4) + " nats";
  if (report.val_bits_per_byte && *report.val_bits_per_byte > 0) {
    line += " (" + FormatFixed(*report.val_bits_per_byte, 4) + " bits/byte)";
  }
  Stderr().Line(line);
  const auto best = model::CheckpointStore(files, out_, 1).Best();
  if (best && best->val_loss && best->step != static_cast<uint64_t>(report.step)) {
    Stderr().Line("Best checkpoint: step " + std::to_string(best->step) + ", " +
                  FormatFixed(*best->val_loss, 4) + " nats in its evaluation");
  }
  const std::string advice = Advice(trainer, report);
  if (!advice.empty()) Stderr().Line("Note: " + advice);
  Stderr().Line("Saved in " + out_ + "; the curves are in " + model::JoinPath(out_, "loss.svg"));
  if (!report.finished) {
    Stderr().Line("Go on with:\n  " + ResumeCommand());
    return;
  }
  line = "Next:\n  lanewise generate " + run + " --prompt \"...\"\n  lanewise eval " + run +
         " --data FILE";
  // What went wrong is not mended by more of it.
  if (advice.empty()) {
    line += "\n  " + ResumeCommand() + " --steps " + std::to_string(2 * report.step) +
            "    # train it further";
  }
  Stderr().Line(line);
}

}  // namespace

std::unique_ptr<Command> MakeTrainCommand() { return std::make_unique<TrainCommand>(); }

}  // namespace lanewise::apps
