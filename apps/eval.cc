// lanewise eval: how well a model predicts a text.
#include <cmath>
#include <cstdio>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "model/error.h"
#include "model/evaluate.h"
#include "model/loaded_model.h"

namespace lanewise::apps {

namespace {

class EvalCommand : public Command {
 public:
  std::string name() const override { return "eval"; }
  std::string summary() const override { return "measure how well a model predicts a text"; }
  std::string usage() const override { return "MODEL --data FILE [OPTIONS]"; }
  std::string description() const override {
    return "Prints the mean cross-entropy (nats a token) of the text under the model, over all "
           "tokens "
           "after the first, its perplexity and, for text, bits per byte. slot_rnn carries its "
           "state "
           "through the whole text; llama reads windows of --ctx tokens.";
  }
  std::vector<std::string> examples() const override {
    return {"eval runs/book --data chapter.txt",
            "eval stories15M.bin --data tale.txt --ctx 256 --stride 128 --json"};
  }

  void Declare(Options& options) override {
    options.Positional("MODEL", &path_, kModelHelp);
    input_.Declare(options);
    options.Integer("ctx", "N", &ctx_, 2, 1 << 24,
                    "llama: tokens of a window (default: the model's context)");
    options.Integer(
        "stride", "N", &stride_, 1, 1 << 24,
        "llama: tokens from one window's begin to the next (default: a window); less gives "
        "each token more context and takes longer");
    options.Flag("per-token", &per_token_, "also print the cross-entropy of each token");
    DeclareDtype(options, &dtype_);
    common_.Declare(options, /*json=*/true, /*profile=*/false);
  }

  int Run(model::FileSystem& files, const Options& options) override {
    // Nothing is left behind, and a pass over long windows may take minutes.
    const EndOnSignal measuring;
    common_.Apply(files);
    input_.Check(options);
    if (ctx_ && stride_ && *stride_ > *ctx_) {
      throw model::UsageError("--stride " + std::to_string(*stride_) +
                              " leaves tokens out between windows of --ctx " +
                              std::to_string(*ctx_) + "; give at most that");
    }
    const model::LoadedModel loaded = model::LoadModel(files, path_, dtype_ == "bf16");
    SayDtype(dtype_);
    if ((ctx_ || stride_) && loaded.model->recurrent()) {
      Stderr().Line("Note: --ctx and --stride are for llama; this model reads the text in one go");
    }
    const model::TokenArray tokens = input_.Read(files, loaded);
    const auto scheduler = common_.MakeScheduler();
    model::Evaluator evaluator(*loaded.model, *scheduler, static_cast<size_t>(ctx_.value_or(0)),
                               static_cast<size_t>(stride_.value_or(0)), dtype_ == "bf16",
                               tokens.size());
    model::EvaluateOptions evaluate;
    evaluate.per_token = per_token_;
    evaluate.progress = [left = TimeLeft()](double done) mutable {
      Stderr().Progress({"evaluating", FormatFixed(100 * done, 0) + "%", left.At(done)});
      return true;
    };
    const model::EvaluateResult result = evaluator.Run(loaded.weights(), tokens, evaluate);
    Stderr().ClearProgress();
    if (!std::isfinite(result.cross_entropy)) {
      throw model::InputError(loaded.file.path +
                              ": the model's outputs are not finite; its weights are damaged, or "
                              "its training diverged");
    }
    common_.json() ? PrintJson(result) : Print(result);
    return 0;
  }

 private:
  bool HasBits() const { return !input_.from_ids(); }

  void Print(const model::EvaluateResult& result) const {
    std::string text = "tokens         " + std::to_string(result.tokens) + "\ncross_entropy  " +
                       FormatFixed(result.cross_entropy, 6) + " nats\nperplexity     " +
                       FormatShort(std::exp(result.cross_entropy)) + "\n";
    if (HasBits()) text += "bits_per_byte  " + FormatFixed(result.bits_per_byte, 6) + "\n";
    for (size_t i = 0; i < result.token_cross_entropy.size(); ++i) {
      text += std::to_string(i + 1) + "\t" + FormatFloat(result.token_cross_entropy[i]) + "\n";
    }
    WriteOutput(text);
  }

  void PrintJson(const model::EvaluateResult& result) const {
    model::Json json = {
        {"tokens", result.tokens},
        {"cross_entropy", result.cross_entropy},
        {"perplexity", std::exp(result.cross_entropy)},
        {"bits_per_byte", HasBits() ? model::Json(result.bits_per_byte) : model::Json()}};
    std::string text = json.dump(2);
    if (per_token_) {
      // A line for a long list of short numbers, which the library would give a line each.
      text.erase(text.rfind('\n'));
      text += ",\n  \"token_cross_entropy\": [";
      for (size_t i = 0; i < result.token_cross_entropy.size(); ++i) {
        const float value = result.token_cross_entropy[i];
        text += (i > 0 ? ", " : "") + (std::isfinite(value) ? FormatFloat(value) : "null");
      }
      text += "]\n}";
    }
    WriteOutput(text + "\n");
  }

  std::string path_;
  TextInput input_;
  std::optional<int64_t> ctx_, stride_;
  bool per_token_ = false;
  std::string dtype_ = "float32";
  CommonOptions common_;
};

}  // namespace

std::unique_ptr<Command> MakeEvalCommand() { return std::make_unique<EvalCommand>(); }

}  // namespace lanewise::apps
