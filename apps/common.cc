#include <sstream>

#include "apps/command.h"
#include "apps/terminal.h"
#include "kernels/matmul.h"
#include "kernels/targets.h"
#include "model/error.h"

#ifndef LANEWISE_VERSION
#define LANEWISE_VERSION "unknown"
#endif

namespace lanewise::apps {

std::string VersionText() { return "lanewise " LANEWISE_VERSION; }

std::string DescribeDtype(const std::string& dtype) {
  if (dtype != "bf16") return dtype;
  const kernels::Bf16Unit unit = kernels::MatmulBf16Unit();
  const std::string how = kernels::HasBf16Unit(unit) ? ")" : ", in software)";
  switch (unit) {
    case kernels::Bf16Unit::kAmx:
      return "bf16 (AMX tiles" + how;
    case kernels::Bf16Unit::kDot:
      return "bf16 (dot products" + how;
    case kernels::Bf16Unit::kFloat32:
      break;
  }
  return "bf16 (weights; float32 arithmetic, which is faster on this CPU)";
}

void SayDtype(const std::string& dtype) {
  if (dtype != "float32") Stderr().Line("Arithmetic: " + DescribeDtype(dtype));
}

void SuggestBf16() {
  const kernels::Bf16Unit unit = kernels::MatmulBf16Unit();
  if (unit == kernels::Bf16Unit::kFloat32 || !kernels::HasBf16Unit(unit)) return;
  Stderr().Line("Note: --dtype bf16 trains faster on this CPU, to the same loss");
}

void CheckOutputFile(model::FileSystem& files, const std::string& path, const std::string& kind,
                     const std::function<bool()>& is_of_kind) {
  if (path.empty()) return;
  const std::string folder = model::ParentPath(model::ResolveOutput(files, path));
  if (!model::IsDirectory(files, folder)) {
    throw model::UsageError(path + ": there is no folder " + folder + "; make it first");
  }
  if (model::GetInfo(files, path).size > 0 && !is_of_kind()) {
    throw model::UsageError(path + " exists and is no " + kind + "; name another file");
  }
}

void DeclareDtype(Options& options, std::string* dtype) {
  options.Group("Arithmetic");
  options.Choice("dtype", "TYPE", dtype, {"float32", "bf16"},
                 "numbers of the matrices: bf16 takes half the memory, and is faster to read");
}

void CommonOptions::Declare(Options& options, bool json, bool profile) {
  options.Group("General");
  options.Integer("threads", "N", &threads_, 0, 4096, "threads to use; 0 takes every one there is");
  options.Text("isa", "TARGET", &isa_,
               "SIMD target to run, as `lanewise info --machine` lists them; for tests");
  options.Choice(
      "bf16-unit", "UNIT", &bf16_unit_, {"auto", "float32", "dot", "amx"},
      "what multiplies with --dtype bf16; one that the CPU lacks is computed in software, "
      "slowly; for tests");
  if (json) options.Flag("json", &json_, "print the result as JSON");
  if (profile) {
    options.Text("profile", "FILE", &profile_,
                 "measure each operation: a trace for chrome://tracing or Perfetto, or "
                 "`summary` for a table on stderr");
  }
  options.Flag("quiet", &quiet_, "no progress and no messages but errors");
}

void CommonOptions::Apply(model::FileSystem& files) const {
  Stderr().set_quiet(quiet_);
  if (profile_ != "summary") {
    CheckOutputFile(files, profile_, "trace of --profile", [&] {
      return model::MappedFile(files, profile_).text().starts_with("{\"traceEvents\"");
    });
  }
  kernels::ForceBf16Unit(bf16_unit_);
  if (isa_ == "auto") return;
  std::vector<std::string> names = {"auto"};
  std::string all = "auto";
  for (const char* name : kernels::SupportedTargetNames()) {
    names.push_back(name);
    all += std::string(", ") + name;
  }
  if (kernels::ForceTarget(isa_)) return;
  const std::string nearest = Nearest(isa_, names);
  throw model::UsageError("--isa: this CPU has no target '" + isa_ + "'; it has " + all +
                          (nearest.empty() ? "" : " (did you mean " + nearest + "?)"));
}

std::unique_ptr<runtime::Scheduler> CommonOptions::MakeScheduler() const {
  return std::make_unique<runtime::Scheduler>(static_cast<size_t>(threads_));
}

runtime::Profiler* CommonOptions::profiler() {
  if (!profile_.empty() && !profiler_) profiler_ = std::make_unique<runtime::Profiler>();
  return profiler_.get();
}

void CommonOptions::WriteProfile(model::FileSystem& files, double peak_gflops) const {
  if (!profiler_) return;
  std::ostringstream text;
  if (profile_ == "summary") {
    profiler_->WriteSummary(text, peak_gflops);
    Stderr().Always(text.str());
    return;
  }
  profiler_->WriteTrace(text);
  model::WriteFileAtomically(files, profile_, text.str());
  Stderr().Line("Profile: " + profile_ + " (open it in https://ui.perfetto.dev)");
}

}  // namespace lanewise::apps
