// lanewise generate: text from a model, streamed as it is made.
#include <algorithm>
#include <optional>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "model/error.h"
#include "model/generate.h"
#include "model/loaded_model.h"
#include "model/session.h"
#include "model/text_batch.h"

namespace lanewise::apps {

namespace {

using model::GenerateReport;
using model::Generator;
using model::Json;

// ", 73 tokens/s", where there is a rate.
std::string AtRate(uint64_t steps, double seconds) {
  if (steps == 0 || seconds <= 0) return "";
  return ", " + FormatCount(static_cast<double>(steps) / seconds) + " tokens/s";
}

// Lines may end as on Windows.
void StripReturn(std::string* line) {
  if (line->ends_with('\r')) line->pop_back();
}

class GenerateCommand : public Command {
 public:
  std::string name() const override { return "generate"; }
  std::string summary() const override { return "let a model go on with a text"; }
  std::string usage() const override { return "MODEL [--prompt TEXT] [OPTIONS]"; }
  std::string description() const override {
    return "Prints the prompt and what the model writes after it, as it is made. The same seed "
           "gives the same text. With --interactive each line that is typed is a prompt, and the "
           "model remembers all that was said. --batch and --prompts write several texts at once, "
           "which takes little longer than one; each is what it would be alone, and is printed "
           "when it and those before it are finished; Ctrl-C ends them where they are.";
  }
  std::vector<std::string> examples() const override {
    return {"generate runs/book --prompt \"In the beginning\" --tokens 300 --temp 0.7",
            "generate runs/book --prompt-file chapter.txt --save-state chapter.state --tokens 0",
            "generate runs/book --load-state chapter.state --stop \"THE END\"",
            "generate runs/book --interactive",
            "generate runs/book --prompt \"Once\" --batch 8 --seed 100",
            "generate runs/book --prompts questions.txt --json > answers.jsonl"};
  }
  void Declare(Options& options) override;
  int Run(model::FileSystem& files, const Options& options) override;

 private:
  void DeclareSampling(Options& options);
  void Check(model::FileSystem& files) const;
  std::string ReadPrompt(model::FileSystem& files) const;
  void Print(std::string_view text);
  GenerateReport Turn(Generator& generator);
  void Interact(Generator& generator);
  void Summarize(const GenerateReport& report) const;
  Json ToJson(const std::string& prompt, const GenerateReport& report, uint64_t seed) const;
  int RunOne(model::FileSystem& files, const model::LoadedModel& loaded,
             model::GenerateOptions generate);
  void SayHowToGoOn(Generator& generator) const;
  std::vector<model::TextRequest> Requests(model::FileSystem& files) const;
  int RunSeveral(model::FileSystem& files, const model::LoadedModel& loaded,
                 const model::GenerateOptions& generate);
  void PrintText(size_t index, size_t count, const model::TextRequest& request,
                 const GenerateReport& report) const;
  // --tokens 0 reads the prompt, and writes nothing.
  bool echo() const { return !no_echo_ && tokens_ > 0; }
  bool several() const { return batch_.has_value() || !prompts_.empty(); }

  std::string path_, prompt_, prompt_file_, prompts_;
  bool interactive_ = false, no_echo_ = false, slide_ = false;
  std::optional<int64_t> batch_;
  int64_t tokens_ = 200, top_k_ = 0, repeat_window_ = 64;
  std::vector<std::string> stop_;
  std::string save_state_, load_state_;
  char last_printed_ = '\n';
  model::SamplerOptions sampler_;
  std::string dtype_ = "float32";
  CommonOptions common_;
};

void GenerateCommand::Declare(Options& options) {
  options.Positional("MODEL", &path_, kModelHelp);
  options.Group("Prompt");
  options.Exclusive("prompt");
  options.Text("prompt", "TEXT", &prompt_, "text to go on with");
  options.Text("prompt-file", "FILE", &prompt_file_,
               "the same from a file; - reads standard input");
  options.Flag("interactive", &interactive_, "a line in, text out, until the end of the input");
  options.Text("prompts", "FILE", &prompts_,
               "a text for each line of a file that is not empty; - reads standard input");
  options.Exclusive("");
  options.Integer("batch", "N", &batch_, 1, 1 << 20,
                  "write N texts after one prompt, with the seeds from --seed on");
  options.Flag("no-echo", &no_echo_, "do not print the prompt before the text");
  DeclareSampling(options);
  options.Group("State");
  options.Flag("slide", &slide_,
               "llama: when the context is full, forget the oldest tokens and go on");
  options.Text("save-state", "FILE", &save_state_,
               "save what the model remembers at the end, to go on later");
  options.Text("load-state", "FILE", &load_state_,
               "go on from a state of the same model; random choices and repetitions begin anew");
  DeclareDtype(options, &dtype_);
  common_.Declare(options, /*json=*/true, /*profile=*/false);
}

void GenerateCommand::DeclareSampling(Options& options) {
  options.Group("Sampling");
  options.Integer("tokens", "N", &tokens_, 0, int64_t{1} << 40,
                  "tokens to generate at most; 0 only reads the prompt");
  options.Number("temp", "T", &sampler_.temperature, {0, 100, false},
                 "temperature: below 1 safer, above 1 wilder; 0 always takes the likeliest token");
  options.Integer("top-k", "K", &top_k_, 0, 1 << 24, "choose among the K likeliest tokens; 0: all");
  options.Number("top-p", "P", &sampler_.top_p, {0, 1, true},
                 "choose among the likeliest tokens that together have probability P; 1: all");
  options.Number("min-p", "P", &sampler_.min_p, {0, 1, false},
                 "leave out tokens with less than P times the probability of the likeliest");
  options.Number("repeat-penalty", "X", &sampler_.repeat_penalty, {0.01, 100, false},
                 "make the last 64 tokens this much less likely; 1: off");
  options.Unsigned("seed", "N", &sampler_.seed, "seed of the random choices");
  options.List("stop", "TEXT", &stop_, /*greedy=*/false, "end before this text would be printed");
}

void GenerateCommand::Check(model::FileSystem& files) const {
  if (interactive_ && common_.json()) {
    throw model::UsageError("--interactive and --json exclude each other");
  }
  if (batch_ && interactive_) {
    throw model::UsageError("--interactive and --batch exclude each other");
  }
  if (batch_ && !prompts_.empty()) {
    throw model::UsageError(
        "--prompts and --batch exclude each other; the texts of --prompts are written at once too");
  }
  if (several() && !(save_state_.empty() && load_state_.empty())) {
    throw model::UsageError(
        "--save-state and --load-state are for one text, not with --batch and --prompts");
  }
  for (const std::string& stop : stop_) {
    if (stop.empty())
      throw model::UsageError("--stop '' is empty: it would end every text at once");
  }
  CheckOutputFile(files, save_state_, "state saved by generate",
                  [&] { return model::IsState(files, save_state_); });
  if (tokens_ == 0 && interactive_) throw model::UsageError("--interactive needs --tokens above 0");
}

std::string GenerateCommand::ReadPrompt(model::FileSystem& files) const {
  const EndOnSignal reading;
  if (prompt_file_ == "-") return ReadInput();
  if (prompt_file_.empty()) return prompt_;
  return model::ReadFile(files, prompt_file_, uint64_t{1} << 30);
}

// Streams unless the answer is JSON.
void GenerateCommand::Print(std::string_view text) {
  if (common_.json() || text.empty()) return;
  WriteOutput(text);
  last_printed_ = text.back();
}

GenerateReport GenerateCommand::Turn(Generator& generator) {
  const GenerateReport report = generator.Run();
  if (last_printed_ != '\n') Print("\n");
  return report;
}

void GenerateCommand::Interact(Generator& generator) {
  const bool terminal = InputIsTerminal();
  if (terminal) {
    Stderr().Line("Type a text for the model to go on with; Ctrl-D ends.");
  }
  bool line_is_open = false;  // of what the model reads: more than what was printed
  for (;;) {
    if (terminal) Stderr().Prompt("> ");
    std::optional<std::string> line = ReadInputLine();
    if (!line) break;
    StripReturn(&*line);
    try {
      generator.Prompt((line_is_open ? "\n" : "") + *line + "\n");
    } catch (const model::UsageError& error) {  // too long; the conversation goes on without it
      Stderr().Error(error.what());
      continue;
    }
    line_is_open = Turn(generator).line_is_open;
    if (!generator.HasRoom()) {
      Stderr().Line("The model's context is full; --slide goes on.");
      break;
    }
    if (StopSignal().load() != 0) break;
  }
  if (terminal) Stderr().Line("");
}

Json GenerateCommand::ToJson(const std::string& prompt, const GenerateReport& report,
                             uint64_t seed) const {
  const auto rate = [](uint64_t tokens, double seconds) {
    return tokens > 0 && seconds > 0 ? Json(static_cast<double>(tokens) / seconds) : Json();
  };
  return {{"prompt", prompt},
          {"text", report.text},
          {"tokens", report.tokens},
          {"tokens_per_second", rate(report.steps, report.seconds)},
          {"seconds", report.seconds},
          {"prompt_tokens", report.prompt_tokens},
          {"prompt_tokens_per_second", rate(report.prompt_tokens, report.prompt_seconds)},
          {"prompt_seconds", report.prompt_seconds},
          {"stop_reason", StopReasonName(report.reason)},
          {"seed", seed}};
}

void GenerateCommand::Summarize(const GenerateReport& report) const {
  if (report.tokens > 0) {
    Stderr().Line("[" + FormatNumber(report.tokens, "token") +
                  AtRate(report.steps, report.seconds) + "; prompt " +
                  FormatNumber(report.prompt_tokens, "token") + " in " +
                  FormatDuration(report.prompt_seconds) + "]");
  }
  if (report.reason == model::StopReason::kInterrupted) {
    Stderr().Line(std::string("Stopped by ") + StopSignalName());
  }
  if (report.reason == model::StopReason::kContextFull) {
    Stderr().Line("Stopped: the model's context is full; --slide goes on.");
  }
}

void GenerateCommand::SayHowToGoOn(Generator& generator) const {
  const bool full = !generator.HasRoom();
  Stderr().Line(
      "State saved in " + save_state_ +
      (full ? "; the model's context is full, so it goes on sliding: " : "; go on with: ") +
      "lanewise generate " + ShellQuoted(path_) + " --load-state " + ShellQuoted(save_state_) +
      (slide_ || full ? " --slide" : "") + (dtype_ == "float32" ? "" : " --dtype " + dtype_));
}

int GenerateCommand::RunOne(model::FileSystem& files, const model::LoadedModel& loaded,
                            model::GenerateOptions generate) {
  const std::string prompt = interactive_ ? std::string() : ReadPrompt(files);
  generate.on_text = [&](std::string_view piece) {
    Print(piece);
    return StopSignal().load() == 0;
  };
  generate.on_prompt = [&](uint64_t read, uint64_t of) {
    if (read < of) {
      Stderr().Progress(
          {"reading the prompt",
           FormatFixed(100 * static_cast<double>(read) / static_cast<double>(of), 0) + "%"});
    } else {
      Stderr().ClearProgress();
      if (echo()) Print(prompt);
    }
    return StopSignal().load() == 0;
  };
  if (SignalExitCode() != 0) throw Stopped();
  const auto scheduler = common_.MakeScheduler();
  model::Session session(*loaded.model, loaded.weights(), *scheduler, {.slide = slide_});
  Generator generator(session, loaded.RequireTokenizer(), loaded.model->vocab_size(), generate);
  const uint64_t hash = save_state_.empty() && load_state_.empty() ? 0 : loaded.Hash();
  if (!load_state_.empty()) generator.Load(files, load_state_, hash);

  if (interactive_) {
    Interact(generator);
  } else {
    if (!prompt.empty()) {
      const EndOnSignal reading;
      generator.Prompt(prompt);
    }
    const GenerateReport report = Turn(generator);
    Stderr().ClearProgress();
    if (common_.json()) WriteJson(ToJson(prompt, report, sampler_.seed));
    Summarize(report);
  }
  if (!save_state_.empty()) {
    generator.Save(files, save_state_, hash);
    SayHowToGoOn(generator);
  }
  return SignalExitCode();
}

// One text for each sample of the prompt, or for each line of the file.
std::vector<model::TextRequest> GenerateCommand::Requests(model::FileSystem& files) const {
  std::vector<model::TextRequest> requests;
  if (batch_) {
    const std::string prompt = ReadPrompt(files);
    for (uint64_t i = 0; i < static_cast<uint64_t>(*batch_); ++i) {
      requests.push_back({prompt, sampler_.seed + i, "the prompt"});
    }
    return requests;
  }
  const std::string name = prompts_ == "-" ? "standard input" : prompts_;
  std::string text;
  {
    const EndOnSignal reading;
    text = prompts_ == "-" ? ReadInput() : model::ReadFile(files, prompts_, uint64_t{1} << 30);
  }
  size_t line = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string prompt = text.substr(at, end - at);
    StripReturn(&prompt);
    at = end + 1;
    ++line;
    if (prompt.empty()) continue;
    requests.push_back({prompt, sampler_.seed, name + ": line " + std::to_string(line)});
  }
  if (requests.empty()) throw model::InputError(name + ": has no prompts; one a line is expected");
  return requests;
}

void GenerateCommand::PrintText(size_t index, size_t count, const model::TextRequest& request,
                                const GenerateReport& report) const {
  Stderr().ClearProgress();
  if (common_.json()) {
    Json line = ToJson(request.prompt, report, request.seed);
    line["index"] = index;
    WriteJson(line, /*indent=*/-1);
    return;
  }
  std::string text = index == 0 ? "" : "\n";
  text += "--- " + std::to_string(index + 1) + " of " + std::to_string(count) +
          (batch_ ? ", seed " + std::to_string(request.seed) : "") + " ---\n";
  text += (echo() ? request.prompt : "") + report.text;
  WriteOutput(text.ends_with('\n') ? text : text + "\n");
}

int GenerateCommand::RunSeveral(model::FileSystem& files, const model::LoadedModel& loaded,
                                const model::GenerateOptions& generate) {
  const std::vector<model::TextRequest> requests = Requests(files);
  if (SignalExitCode() != 0) throw Stopped();
  const auto scheduler = common_.MakeScheduler();
  const model::TextBatchReport total = model::GenerateTexts(
      *loaded.model, loaded.weights(), *scheduler, loaded.RequireTokenizer(), requests,
      {.text = generate,
       .slide = slide_,
       .on_finished =
           [&](size_t index, const GenerateReport& report) {
             PrintText(index, requests.size(), requests[index], report);
           },
       .on_step =
           [&](const model::TextBatchReport& r) {
             Stderr().Progress(
                 {std::to_string(r.texts) + "/" + std::to_string(requests.size()) + " texts",
                  FormatCount(static_cast<double>(r.tokens)) + " tokens" +
                      AtRate(r.steps, r.seconds)});
             return StopSignal().load() == 0;
           }});
  Stderr().Line("[" + FormatNumber(total.texts, "text") + ", " +
                FormatNumber(total.tokens, "token") + AtRate(total.steps, total.seconds) +
                "; prompts " + FormatNumber(total.prompt_tokens, "token") + " in " +
                FormatDuration(total.prompt_seconds) + "]");
  if (total.full > 0) {
    Stderr().Line(std::to_string(total.full) +
                  " stopped: the model's context is full; --slide goes on.");
  }
  if (total.interrupted > 0) {
    Stderr().Line(std::to_string(total.interrupted) + " stopped by " + StopSignalName() +
                  " before their end");
  }
  return SignalExitCode();
}

int GenerateCommand::Run(model::FileSystem& files, const Options& /*options*/) {
  common_.Apply(files);
  Check(files);
  sampler_.top_k = static_cast<size_t>(top_k_);
  sampler_.repeat_window = static_cast<size_t>(repeat_window_);
  sampler_.Validate();
  const model::LoadedModel loaded = model::LoadModel(files, path_, dtype_ == "bf16");
  loaded.RequireTokenizer();
  SayDtype(dtype_);
  if (slide_ && loaded.model->recurrent()) {
    Stderr().Line("Note: --slide is for llama; the context of this model is never full");
  }
  const model::GenerateOptions generate{
      .sampler = sampler_, .tokens = static_cast<uint64_t>(tokens_), .stop = stop_, .on_text = {}};
  if (several()) return RunSeveral(files, loaded, generate);
  return RunOne(files, loaded, generate);
}

}  // namespace

std::unique_ptr<Command> MakeGenerateCommand() { return std::make_unique<GenerateCommand>(); }

}  // namespace lanewise::apps
