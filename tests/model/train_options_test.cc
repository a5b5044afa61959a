#include "model/train_options.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "model/error.h"
#include "model/model.h"

namespace lanewise::model {
namespace {

using Change = std::function<void(TrainOptions&)>;

std::string Message(const Change& change) {
  TrainOptions options;
  change(options);
  try {
    options.Validate();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("the defaults are valid, and so are the borders of the ranges") {
  CHECK(Message([](TrainOptions&) {}) == "");
  CHECK(Message([](TrainOptions& o) {
          o.val_fraction = 0;
          o.clip = 0;
          o.eval_every = 0;
          o.save_every = 0;
          o.warmup = 0;
          o.sizes.slots = 32;
          o.seed = UINT64_MAX;
        }) == "");
}

TEST_CASE("an option out of range is named with its range") {
  CHECK(Message([](TrainOptions& o) { o.sizes.layers = 0; }) ==
        "--layers 0: must be from 1 to 1024");
  CHECK(Message([](TrainOptions& o) { o.sizes.slots = 33; }) == "--slots 33: must be from 1 to 32");
  CHECK(Message([](TrainOptions& o) { o.lr = 0; }) == "--lr 0: must be above 0 and at most 10");
  CHECK(Message([](TrainOptions& o) { o.lr = NAN; }).starts_with("--lr nan"));
  CHECK(Message([](TrainOptions& o) { o.beta2 = 1; }).starts_with("--beta2 1"));
  CHECK(Message([](TrainOptions& o) { o.label_smoothing = 1; }).starts_with("--label-smoothing 1"));
  CHECK(Message([](TrainOptions& o) { o.minutes = INFINITY; }).starts_with("--minutes inf"));
  CHECK(Message([](TrainOptions& o) { o.steps = 0; }).starts_with("--steps 0"));
  CHECK(Message([](TrainOptions& o) { o.val_fraction = 0.95; }).starts_with("--val-fraction 0.95"));
  CHECK(Message([](TrainOptions& o) { o.keep = 0; }).starts_with("--keep 0"));
  CHECK(Message([](TrainOptions& o) { o.batch = -4; }).starts_with("--batch -4"));
}

TEST_CASE("options that exclude each other are both named") {
  const std::string message = Message([](TrainOptions& o) {
    o.steps = 10;
    o.minutes = 1;
  });
  CHECK(message == "--steps and --minutes both say how long to train: give one of them");
  CHECK(Message([](TrainOptions& o) {
          o.lr = 1e-3;
          o.min_lr = 1e-2;
        }) == "--min-lr 0.01: must be at most --lr 0.001");
}

TEST_CASE("options of the other model are refused with the way out") {
  CHECK(Message([](TrainOptions& o) { o.sizes.preset = "15M"; }) ==
        "--preset is an option of the model llama; this is slot_rnn: leave it out, or add --model "
        "llama");
  CHECK(Message([](TrainOptions& o) {
          o.model = "llama";
          o.sizes.slots = 4;
        }).starts_with("--slots is an option of the model slot_rnn"));
  CHECK(Message([](TrainOptions& o) {
          o.model = "llama";
          o.carry_state = true;
        }).starts_with("--carry-state"));
  CHECK(Message([](TrainOptions& o) {
          o.model = "llama";
          o.carry_state = false;
          o.sizes.preset = "42M";
        }) == "");
}

TEST_CASE("unknown names come with the nearest right one") {
  CHECK(Message([](TrainOptions& o) { o.model = "lama"; }) ==
        "--model: there is no model \"lama\": did you mean \"llama\"? (slot_rnn, llama)");
  CHECK(Message([](TrainOptions& o) {
          o.model = "llama";
          o.sizes.preset = "15m";
        }).find("did you mean \"15M\"?") != std::string::npos);
  CHECK(Message([](TrainOptions& o) { o.recompute = "layers"; }).find("\"layer\"") !=
        std::string::npos);
  CHECK_THROWS_WITH_AS(ParseSchedule("cosin"),
                       "--schedule: there is no schedule \"cosin\": did you mean \"cosine\"? "
                       "(constant, linear, cosine, wsd)",
                       UsageError);
  for (const Schedule s :
       {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine, Schedule::kWsd}) {
    CHECK(ParseSchedule(ScheduleName(s)) == s);
  }
}

TrainPlan PlanOf(Schedule schedule) {
  TrainPlan plan;
  plan.lr = 1;
  plan.min_lr = 0.1;
  plan.warmup = 10;
  plan.schedule = schedule;
  plan.steps = 110;
  return plan;
}

TEST_CASE("the learning rate rises evenly, then follows its schedule and stays at the minimum") {
  for (const Schedule s :
       {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine, Schedule::kWsd}) {
    CAPTURE(ScheduleName(s));
    const TrainPlan plan = PlanOf(s);
    CHECK(plan.LearningRate(1) == doctest::Approx(0.1));
    CHECK(plan.LearningRate(5) == doctest::Approx(0.5));
    CHECK(plan.LearningRate(9) == doctest::Approx(0.9));
    CHECK(plan.LearningRate(10) == doctest::Approx(1));
    for (int64_t step = 11; step <= 110; ++step) {
      CHECK(plan.LearningRate(step) <= plan.LearningRate(step - 1));
    }
    const double last = s == Schedule::kConstant ? 1 : 0.1;
    CHECK(plan.LearningRate(110) == doctest::Approx(last));
    CHECK(plan.LearningRate(1000) == doctest::Approx(last));
  }
  CHECK(PlanOf(Schedule::kLinear).LearningRate(60) == doctest::Approx(0.55));
  CHECK(PlanOf(Schedule::kLinear).LearningRate(35) == doctest::Approx(0.775));
  CHECK(PlanOf(Schedule::kCosine).LearningRate(60) == doctest::Approx(0.55));
  CHECK(PlanOf(Schedule::kCosine).LearningRate(35) ==
        doctest::Approx(0.1 + 0.45 * (1 + std::sqrt(0.5))));
  CHECK(PlanOf(Schedule::kWsd).LearningRate(88) == doctest::Approx(1));  // 80% of the steps
  CHECK(PlanOf(Schedule::kWsd).LearningRate(99) == doctest::Approx(1 - 0.9 * std::sqrt(0.5)));
}

TEST_CASE("learning rates without warm-up, without a horizon, and with a warm-up beyond the end") {
  TrainPlan plan = PlanOf(Schedule::kLinear);
  plan.warmup = 0;
  CHECK(plan.LearningRate(1) == doctest::Approx(1 - 0.9 / 110));
  plan.steps = 0;
  CHECK(plan.LearningRate(1'000'000) == 1);
  plan.steps = 1;
  CHECK(plan.LearningRate(1) == doctest::Approx(0.1));
  plan.steps = 5;
  plan.warmup = 10;
  CHECK(plan.LearningRate(5) == doctest::Approx(0.5));
  plan.warmup = 5;
  CHECK(plan.LearningRate(4) == doctest::Approx(0.8));
  CHECK(plan.LearningRate(5) == 1);
}

TEST_CASE("fixing the horizon chooses a warm-up that was left open") {
  const auto warmup = [](int64_t steps, const char* model) {
    TrainPlan plan;
    plan.model = {{"model", model}};
    plan.warmup = -1;
    plan.FixSteps(steps);
    CHECK(plan.steps == steps);
    return plan.warmup;
  };
  CHECK(warmup(1200, "slot_rnn") == 50);
  CHECK(warmup(10'000, "slot_rnn") == 200);
  CHECK(warmup(2000, "llama") == 100);
  CHECK(warmup(100, "llama") == 10);
  CHECK(warmup(5, "slot_rnn") == 0);
  TrainPlan plan;
  plan.warmup = 7;
  plan.FixSteps(1000);
  CHECK(plan.warmup == 7);
}

TrainPlan Configure(const Change& change, uint64_t bytes, double gflops = 0, bool words = false) {
  TrainOptions options;
  change(options);
  return AutoConfigure(options, bytes, words ? bytes / 5 : bytes, words ? 8000 : 65, words, gflops);
}

const Change kNothing = [](TrainOptions&) {};

TEST_CASE("plans survive JSON, and damaged ones are refused by field") {
  TrainPlan plan = Configure(
      [](TrainOptions& o) {
        o.lr = 0.1 / 3;
        o.schedule = Schedule::kWsd;
        o.seed = UINT64_MAX;
        o.warmup = 3;
        o.dropout = 0.2;
        o.minutes = 1.5;
        o.eval_every = 0;
      },
      1'000'000);
  const Json json = Json::parse(plan.ToJson().dump());
  const TrainPlan back = TrainPlan::FromJson(json, "state");
  CHECK(back.ToJson() == plan.ToJson());
  CHECK(back.lr == plan.lr);
  CHECK(back.seed == UINT64_MAX);
  CHECK(back.schedule == Schedule::kWsd);
  CHECK(back.eval_every == 0);
  CHECK(back.eval_tokens == -1);
  for (const auto& [field, value] : json.items()) {
    CAPTURE(field);
    Json damaged = json;
    damaged.erase(field);
    CHECK_THROWS_AS(TrainPlan::FromJson(damaged, "state"), InputError);
    damaged[field] = field == "data" ? Json("a path") : Json::array();
    CHECK_THROWS_AS(TrainPlan::FromJson(damaged, "state"), InputError);
    if (!value.is_number()) continue;
    damaged[field] = field == "seed" ? Json(-1) : Json(-5);
    CHECK_THROWS_AS(TrainPlan::FromJson(damaged, "state"), InputError);
  }
}

TEST_CASE("sizes follow the effective size of the corpus") {
  const auto sizes = [](uint64_t bytes, bool words) {
    const Json m = Configure(kNothing, bytes, 0, words).model;
    return std::vector<double>{m["layers"], m["dim"],        m["ctx"],      m["heads"],
                               m["slots"],  m["decay_rank"], m["ffn_mult"], m["ffn_dim"]};
  };
  CHECK(sizes(4'999, false) == std::vector<double>{2, 64, 64, 2, 2, 4, 1.5, 96});
  CHECK(sizes(5'000, false) == std::vector<double>{4, 128, 128, 4, 4, 8, 2, 256});
  CHECK(sizes(50'000, false) == std::vector<double>{6, 256, 256, 8, 4, 16, 2.5, 640});
  CHECK(sizes(500'000, false) == std::vector<double>{8, 384, 512, 12, 8, 32, 3, 1152});
  CHECK(sizes(2'499'999, true) == sizes(50'000, false));
  CHECK(sizes(2'500'000, true) == sizes(500'000, false));
}

TEST_CASE("a given size replaces one field and leaves the rest") {
  const Json given = Configure(
                         [](TrainOptions& o) {
                           o.sizes.dim = 100;
                           o.sizes.ffn_mult = 1.1;
                           o.sizes.vocab = 70;
                         },
                         1'000'000)
                         .model;
  CHECK(given["dim"] == 100);
  CHECK(given["ffn_dim"] == 110);
  CHECK(given["layers"] == 8);
  CHECK(given["vocab_size"] == 70);
  CHECK(given["heads"] == 2);  // 100 / 32 = 3 does not divide 100
  const Json fixed = Configure([](TrainOptions& o) { o.auto_config = false; }, 1'000'000).model;
  CHECK(fixed == Json{{"model", "slot_rnn"},
                      {"vocab_size", 65},
                      {"layers", 4},
                      {"dim", 128},
                      {"heads", 4},
                      {"ctx", 128},
                      {"slots", 4},
                      {"decay_rank", 2},
                      {"ffn_mult", 2.0},
                      {"ffn_dim", 256}});
}

TEST_CASE("parameters are counted as the model has them") {
  for (const uint64_t bytes : {1'000, 10'000, 100'000, 1'000'000}) {
    const Json config = Configure(kNothing, bytes).model;
    CHECK(MakeModel(config, "config")->params().Count() == CountParameters(config));
  }
}

TEST_CASE("a window is no longer than a short text, unless asked for") {
  CHECK(Configure(kNothing, 20).ctx == 19);
  CHECK(Configure(kNothing, 1).ctx == 1);
  CHECK(Configure([](TrainOptions& o) { o.sizes.ctx = 64; }, 20).ctx == 64);
}

TEST_CASE("llama: presets, sizes that were given, and what follows from them") {
  const auto config = [](const Change& change) {
    return Configure(
               [&](TrainOptions& o) {
                 o.model = "llama";
                 change(o);
               },
               1'000'000)
        .model;
  };
  CHECK(config(kNothing) == Json{{"model", "llama"},
                                 {"vocab_size", 65},
                                 {"layers", 4},
                                 {"dim", 128},
                                 {"heads", 4},
                                 {"kv_heads", 4},
                                 {"hidden_dim", 352},
                                 {"ctx", 64},
                                 {"tied", true},
                                 {"norm_eps", 1e-5},
                                 {"rope_theta", 10000.0}});
  const Json small = config([](TrainOptions& o) { o.sizes.preset = "260K"; });
  CHECK(small["hidden_dim"] == 172);
  CHECK(small["kv_heads"] == 4);
  CHECK(small["ctx"] == 512);
  const Json wide = config([](TrainOptions& o) {
    o.sizes.dim = 768;
    o.sizes.layers = 12;
    o.sizes.untied = true;
  });
  CHECK(wide["hidden_dim"] == 2048);
  CHECK(wide["heads"] == 12);
  CHECK(wide["kv_heads"] == 12);
  CHECK(wide["tied"] == false);
  // A published preset of this shape has 15,191,712 parameters with its own vocabulary.
  const Json preset = config([](TrainOptions& o) {
    o.sizes.preset = "15M";
    o.sizes.vocab = 32'000;
  });
  CHECK(CountParameters(preset) == 15'191'712);
  CHECK(config([](TrainOptions& o) {
          o.sizes.preset = "15M";
          o.sizes.kv_heads = 2;
        })["kv_heads"] == 2);
}

TEST_CASE("sizes that do not fit together are named") {
  const auto message = [](const Change& change, const char* model) -> std::string {
    try {
      Configure(
          [&](TrainOptions& o) {
            o.model = model;
            change(o);
          },
          1'000'000);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  };
  const Change heads = [](TrainOptions& o) {
    o.sizes.dim = 128;
    o.sizes.heads = 3;
  };
  CHECK(message(heads, "slot_rnn") == "--heads 3: must divide --dim 128; try 2");
  CHECK(message(heads, "llama") == "--heads 3: must divide --dim 128; try 2");
  CHECK(message(
            [](TrainOptions& o) {
              o.sizes.heads = 4;
              o.sizes.kv_heads = 3;
            },
            "llama") == "--kv-heads 3: must divide --heads 4; try 2");
  CHECK(message([](TrainOptions& o) { o.sizes.dim = 127; }, "llama").starts_with("--dim 127"));
  CHECK(message(
            [](TrainOptions& o) {
              o.sizes.dim = 6;
              o.sizes.heads = 2;
            },
            "llama") ==
        "--heads 2: makes heads of width 3 from --dim 6, which must be even; try 1");
  CHECK(message([](TrainOptions& o) { o.sizes.vocab = 64; }, "llama").starts_with("--vocab 64"));
  CHECK(message([](TrainOptions& o) { o.min_lr = 1; }, "llama").starts_with("--min-lr 1"));
  CHECK(message(
            [](TrainOptions& o) {
              o.sizes.dim = 1;
              o.sizes.ffn_mult = 0.5;
            },
            "slot_rnn")
            .starts_with("--ffn-mult 0.5"));
}

TEST_CASE("few minutes choose a smaller model, many the one that the corpus asks for") {
  const auto dim = [](double minutes, double gflops) {
    return Configure([&](TrainOptions& o) { o.minutes = minutes; }, 4'400'000, gflops)
        .model["dim"]
        .get<int64_t>();
  };
  CHECK(dim(1.5, 400) == 128);
  CHECK(dim(0.01, 400) == 64);
  CHECK(dim(10'000, 400) == 384);
  CHECK(dim(1.5, 0) == 384);  // the speed is unknown
  int64_t last = 0;
  for (double minutes = 0.01; minutes < 2000; minutes *= 1.5) {
    CHECK(dim(minutes, 300) >= last);
    last = dim(minutes, 300);
  }
}

TEST_CASE("the length: steps, or what epochs and tokens come to") {
  const auto steps = [](const Change& change, uint64_t bytes) {
    return Configure(
               [&](TrainOptions& o) {
                 o.auto_config = false;  // 4 x 128, windows of 128
                 change(o);
               },
               bytes)
        .steps;
  };
  // 16 x 128 tokens a step, 1,000,000 targets: 489 steps, the last of which is not full.
  CHECK(steps([](TrainOptions& o) { o.steps = 7; }, 1'000'001) == 7);
  CHECK(steps([](TrainOptions& o) { o.tokens = 2'000'000; }, 1'000'001) == 978);
  CHECK(steps([](TrainOptions& o) { o.tokens = 2'000'001; }, 1'000'001) == 979);
  CHECK(steps([](TrainOptions& o) { o.tokens = 1; }, 1'000'001) == 1);
  CHECK(steps([](TrainOptions& o) { o.epochs = 1; }, 1'000'001) == 489);
  CHECK(steps(
            [](TrainOptions& o) {
              o.epochs = 0.5;
              o.grad_accum = 2;
            },
            1'000'001) == 123);
  CHECK(steps([](TrainOptions& o) { o.minutes = 1; }, 1'000'001) == 0);
  CHECK(steps(kNothing, 1'000'001) == 4890);  // ten epochs
  CHECK(steps(kNothing, 3'000) == 1000);      // at least
  CHECK(steps(kNothing, 100'000'000) < 10'000);
  // A window longer than the text counts as the text.
  CHECK(steps(
            [](TrainOptions& o) {
              o.epochs = 3;
              o.sizes.ctx = 1000;
              o.batch = 1;
            },
            101) == 3);
}

TEST_CASE("batches fit the model and the corpus and can be cut into shards") {
  const auto batch = [](const Change& change, uint64_t bytes) {
    return Configure(change, bytes).batch;
  };
  const Change small = [](TrainOptions& o) { o.auto_config = false; };
  CHECK(batch(small, 1'000'000) == 16);
  CHECK(batch(small, 20'000) == 8);
  CHECK(batch(small, 3'000) == 1);
  CHECK(batch([](TrainOptions& o) { o.sizes.ctx = 16'384; }, 10'000'000) == 1);
  CHECK(batch(kNothing, 10'000'000) == 16);  // 8 x 384, windows of 512
  CHECK(batch([](TrainOptions& o) { o.batch = 5; }, 10'000'000) == 5);
}

TEST_CASE("defaults of the optimizer by model and width, replaced one by one") {
  const TrainPlan small = Configure([](TrainOptions& o) { o.auto_config = false; }, 1'000'000);
  CHECK(small.lr == doctest::Approx(6e-3));
  CHECK(small.min_lr == doctest::Approx(3e-4));
  CHECK(small.beta2 == 0.99);
  CHECK(small.weight_decay == 0.1);
  CHECK(small.clip == 1.0);
  CHECK(small.carry_state);
  CHECK(small.schedule == Schedule::kCosine);
  CHECK(Configure(kNothing, 1'000'000).lr == doctest::Approx(2e-3));  // 384 wide
  const auto llama = [](const char* preset) {
    return Configure(
        [&](TrainOptions& o) {
          o.model = "llama";
          o.sizes.preset = preset;
        },
        1'000'000);
  };
  CHECK(llama("").lr == 1e-3);
  CHECK(llama("").min_lr == doctest::Approx(1e-4));
  CHECK(llama("").warmup == 100);
  CHECK_FALSE(llama("").carry_state);
  CHECK(llama("110M").lr == 5e-4);
  CHECK(llama("110M").beta2 == 0.95);
  const TrainPlan given = Configure(
      [](TrainOptions& o) {
        o.lr = 1e-2;
        o.warmup = 0;
        o.carry_state = false;
        o.weight_decay = 0;
      },
      1'000'000);
  CHECK(given.lr == 1e-2);
  CHECK(given.min_lr == doctest::Approx(5e-4));
  CHECK(given.warmup == 0);
  CHECK(given.weight_decay == 0);
  CHECK(given.beta1 == 0.9);
  CHECK_FALSE(given.carry_state);
}

}  // namespace
}  // namespace lanewise::model
