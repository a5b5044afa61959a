// lanewise convert: a model from one format to another.
#include <algorithm>

#include "apps/command.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "model/checkpoint.h"
#include "model/error.h"
#include "model/formats/gguf.h"
#include "model/formats/llama2c.h"
#include "model/formats/seed_rnn.h"

namespace lanewise::apps {

namespace {

class ConvertCommand : public Command {
 public:
  std::string name() const override { return "convert"; }
  std::string summary() const override { return "write a model in another format"; }
  std::string usage() const override { return "IN OUT [OPTIONS]"; }
  std::string description() const override {
    return "The form of OUT says which format: a name that ends in .bin is the seed program's "
           "lrnnC02 for "
           "slot_rnn and llama2.c's file for llama; .gguf is llama.cpp's file of a llama; any "
           "other name is a folder with config.json, model.safetensors and tokenizer.json.";
  }
  std::vector<std::string> examples() const override {
    return {"convert runs/book book.bin", "convert stories15M.bin models/stories15M",
            "convert models/stories15M out.bin --version 1",
            "convert runs/tf tf.gguf --dtype bf16"};
  }

  void Declare(Options& options) override {
    options.Positional("IN", &in_, kModelHelp);
    options.Positional("OUT", &out_, "file or folder to write");
    options.Integer("version", "N", &version_, 0, 1, "of llama2.c's format");
    options.Choice("dtype", "TYPE", &dtype_, {"float32", "bf16"},
                   "of the matrices in a folder or a .gguf file: bf16 takes half the space");
    options.Flag("force", &force_, "replace OUT if it is a file that exists");
    common_.Declare(options, /*json=*/false, /*profile=*/false);
  }

  int Run(model::FileSystem& files, const Options& options) override {
    common_.Apply(files);
    const model::ModelFile file = model::OpenModel(files, in_);
    const bool llama = file.config["model"] == "llama";
    const bool gguf = out_.ends_with(".gguf"), bin = out_.ends_with(".bin");
    const bool single = gguf || bin;
    if (options.Given("version") && !(bin && llama)) {
      throw model::UsageError("--version is for llama models and an OUT that ends in .bin");
    }
    if (bin && dtype_ == "bf16") {
      throw model::UsageError(
          "--dtype bf16 is for an OUT that is a folder or a .gguf file; .bin files are float32");
    }
    CheckOut(files, single);
    if (gguf) {
      model::WriteGguf(files, out_, file, dtype_ == "bf16");
      NoteTokenizer(file);
    } else if (single && llama) {
      model::WriteLlama2c(files, out_, file, static_cast<int>(version_));
      if (!file.tokenizer.is_null()) {
        Stderr().Line("Note: this format has no place for the tokenizer; a folder keeps it");
      }
    } else if (single) {
      model::WriteSeedRnn(files, out_, file);
      if (model::GetString(file.tokenizer, "kind", file.path) == "char") {
        Stderr().Line(
            "Note: this format has no tokens for bytes outside the model's alphabet: they are read "
            "as other characters");
      }
    } else {
      WriteFolder(files, file);
    }
    Stderr().Line("Wrote " + out_ + (dtype_ == "bf16" ? ", matrices in bf16" : ""));
    return 0;
  }

 private:
  void CheckOut(model::FileSystem& files, bool single) const {
    if (out_.empty()) throw model::UsageError("OUT is empty; name a file or a folder");
    if (out_.ends_with(".safetensors")) {
      throw model::UsageError("OUT: give the name of a folder; " + out_ +
                              " would have no place for the configuration and the tokenizer");
    }
    const model::FileInfo info = model::GetInfo(files, out_);
    std::string target;
    if (info.kind == model::FileInfo::Kind::kMissing) {
      if (single || files.ReadLink(out_, &target) < 0) return;
      throw model::UsageError(out_ + " is a symbolic link to " + target +
                              ", which does not exist; remove it, or give OUT another name");
    }
    if (!single || info.kind == model::FileInfo::Kind::kDirectory) {
      throw model::UsageError(out_ + " exists; give OUT another name" +
                              (force_ ? " (--force replaces single files only)" : ""));
    }
    model::ResolveOutput(files, out_);
    if (!force_) throw model::UsageError(out_ + " exists; --force replaces it");
  }

  // What llama.cpp cannot do with a GGUF file's tokenizer.
  static void NoteTokenizer(const model::ModelFile& file) {
    if (file.tokenizer.is_null()) {
      Stderr().Line("Note: the model has no tokenizer, so the file has none: it is for benchmarks");
    } else if (model::GetString(file.tokenizer, "kind", file.path) == "char") {
      Stderr().Line(
          "Note: llama.cpp takes prompts of the model's own characters only; a model with "
          "--tokenizer byte takes any");
    }
  }

  void WriteFolder(model::FileSystem& files, const model::ModelFile& file) const {
    model::CheckpointContent content;
    content.config = file.config;
    content.config.erase("training");  // describes the run, which this folder is not
    content.tokenizer = file.tokenizer;
    for (const model::NamedTensor& tensor : file.tensors) {
      const bool matrix = tensor.shape.size() > 1 && tensor.shape[1] > 1;
      content.weights.push_back(model::MakeSource(tensor, matrix && dtype_ == "bf16"));
    }
    model::MakeDirectories(files, model::ParentPath(out_));
    model::SaveModelFolder(files, out_, content, 0, std::nullopt);
  }

  std::string in_, out_;
  std::string dtype_ = "float32";
  int64_t version_ = 0;
  bool force_ = false;
  CommonOptions common_;
};

}  // namespace

std::unique_ptr<Command> MakeConvertCommand() { return std::make_unique<ConvertCommand>(); }

}  // namespace lanewise::apps
