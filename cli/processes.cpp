#include "processes.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace hesper::cli {

using nlohmann::json;

int process_rank() {
  const char *world = std::getenv("WORLD_SIZE"), *rank = std::getenv("RANK");
  return world && rank && std::atoi(world) > 1 ? std::atoi(rank) : 0;
}

int local_rank() {
  const char *world = std::getenv("WORLD_SIZE"), *rank = std::getenv("LOCAL_RANK");
  return world && rank && std::atoi(world) > 1 ? std::atoi(rank) : 0;
}

std::unique_ptr<Ranks> meet_ranks(Snapshots& snapshots, at::Device device) {
  const std::optional<RankPlace> place = rank_place();
  if (!place) return nullptr;
  auto ranks = std::make_unique<Ranks>(*place, device, [](const std::string& what) {
    fmt::print(stderr, "hesper: {}; the same command goes on from the last snapshot, on any number of ranks\n", what);
    std::fflush(stderr);
    ::_exit(1);
  });
  json said;
  if (snapshots.from) {
    const RunState& from = *snapshots.from;
    for (const auto& [name, tensor] : from.tensors)
      if (name == "done")
        said = {{"plan", from.plan},
                {"stage", from.stage},
                {"steps", from.steps},
                {"done", std::vector<double>(tensor.const_data_ptr<double>(),
                                             tensor.const_data_ptr<double>() + tensor.numel())}};
  }
  said = json::parse(ranks->share(said.dump()));
  if (!ranks->conducts() && !said.is_null()) {
    RunState& from = snapshots.from.emplace();
    from.plan = said.at("plan"), from.stage = said.at("stage"), from.steps = said.at("steps");
    from.tensors = {{"done", at::tensor(said.at("done").get<std::vector<double>>(), at::kDouble)}};
  }
  return ranks;
}

}  // namespace hesper::cli
