// lanewise gradients: loss and gradients of a text, for comparison with other programs.
#include <cmath>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "model/error.h"
#include "model/gradients.h"
#include "model/loaded_model.h"

namespace lanewise::apps {

namespace {

using model::Json;

struct Figures {
  double sum = 0, squares = 0, max_abs = 0;
};

Figures Measure(const model::Param& param, const float* gradients) {
  Figures figures;
  const auto values = param.In(gradients);
  for (size_t r = 0; r < values.rows; ++r) {
    for (const float value : values.RowSpan(r)) {
      const double x = value;
      figures.sum += x;
      figures.squares += x * x;
      if (!(std::fabs(x) <= figures.max_abs)) figures.max_abs = std::fabs(x);
    }
  }
  return figures;
}

class GradientsCommand : public Command {
 public:
  std::string name() const override { return "gradients"; }
  std::string summary() const override { return "print the loss and gradients of a text"; }
  std::string usage() const override { return "MODEL --data FILE [OPTIONS]"; }
  std::string description() const override {
    return "Reads the text as one window from an empty state and prints its loss and, for each "
           "parameter, the sum, norm and largest entry of the gradient: for comparison with other "
           "programs. Memory grows with the length of the text.";
  }
  std::vector<std::string> examples() const override {
    return {"gradients runs/book --data page.txt --json"};
  }

  void Declare(Options& options) override {
    options.Positional("MODEL", &path_, kModelHelp);
    input_.Declare(options);
    options.Number("label-smoothing", "X", &smoothing_, {0, 0.99, false},
                   "share of each target that is spread over the whole vocabulary");
    common_.Declare(options, /*json=*/true, /*profile=*/false);
  }

  int Run(model::FileSystem& files, const Options& options) override {
    common_.Apply(files);
    input_.Check(options);
    const model::LoadedModel loaded = model::LoadModel(files, path_);
    const model::TokenArray array = input_.Read(files, loaded);
    std::vector<int32_t> tokens(static_cast<size_t>(array.size()));
    array.Copy(0, tokens);
    const auto scheduler = common_.MakeScheduler();
    const model::GradientResult result = model::ComputeGradients(
        *loaded.model, loaded.weights().full, *scheduler, tokens, smoothing_);
    Json parameters = Json::object();
    std::string text = "loss  " + FormatDouble(result.loss) + "\n";
    for (const model::Param& param : loaded.model->params().params()) {
      const Figures figures = Measure(param, result.gradients.data());
      const double l2 = std::sqrt(figures.squares);
      parameters[param.name] = {
          {"shape", param.Shape()}, {"sum", figures.sum}, {"l2", l2}, {"max_abs", figures.max_abs}};
      text += param.name + "  l2 " + FormatDouble(l2) + "  max_abs " +
              FormatDouble(figures.max_abs) + "  sum " + FormatDouble(figures.sum) + "\n";
    }
    if (common_.json()) {
      WriteJson({{"loss", result.loss},
                 {"cross_entropy", result.cross_entropy},
                 {"label_smoothing", smoothing_},
                 {"tokens", tokens.size()},
                 {"parameters", std::move(parameters)}});
    } else {
      WriteOutput(text);
    }
    return 0;
  }

 private:
  std::string path_;
  TextInput input_;
  double smoothing_ = 0;
  CommonOptions common_;
};

}  // namespace

std::unique_ptr<Command> MakeGradientsCommand() { return std::make_unique<GradientsCommand>(); }

}  // namespace lanewise::apps
