// The file of a snapshot: what is written comes back, nothing else does.
#include "run/snapshot.h"

#include <gtest/gtest.h>

#include <fstream>

#include "checkpoint/safetensors.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

using nlohmann::json;

class SnapshotFile : public testing::Test {
 protected:
  Snapshots snapshots(const json& configuration) const {
    return {folder / "run.snapshot", [configuration] { return configuration; }, 60};
  }
  RunState state() const {
    RunState s;
    s.plan = {{"pass", "gram"}, {"directions", 7}};
    s.stage = {{"step", 5}};
    s.seconds = 0.1;
    s.tensors = {{"sum", at::arange(12, at::kDouble).view({3, 4}) / 7}, {"none", at::zeros({0}, at::kDouble)}};
    return s;
  }
  void write(const std::string& bytes) const { std::ofstream(folder / "run.snapshot", std::ios::binary) << bytes; }
  const TemporaryFolder folder;
  const json configuration = {{"curvature", "hessian"}, {"windows", {1, 2}}, {"seed", 3}};
};

TEST_F(SnapshotFile, ComesBackAsItWas) {
  EXPECT_FALSE(snapshots(configuration).load());
  EXPECT_TRUE(snapshots(configuration).save(state()));
  const RunState back = snapshots(configuration).load().value();
  EXPECT_EQ(back.plan, state().plan);
  EXPECT_EQ(back.stage, state().stage);
  EXPECT_EQ(back.seconds, 0.1);
  EXPECT_TRUE(at::equal(back.tensor("sum", {3, 4}), state().tensor("sum", {3, 4})));
  EXPECT_EQ(back.tensor("none", {0}).numel(), 0);
  EXPECT_THROW(back.tensor("sum", {4, 3}), std::runtime_error);
  snapshots(configuration).remove();
  EXPECT_FALSE(snapshots(configuration).load());
}

// What several runs in turn have left goes with the state of each.
TEST_F(SnapshotFile, KeepsWhatCameBefore) {
  Snapshots one = snapshots(configuration);
  one.before = {{{"products", 3}}, {{"mean", at::arange(4, at::kDouble)}}};
  EXPECT_TRUE(one.save(state()));
  Snapshots other = snapshots(configuration);
  EXPECT_EQ(other.load().value().tensors.size(), 2u);
  EXPECT_EQ(other.before.note, one.before.note);
  ASSERT_EQ(other.before.tensors.size(), 1u);
  EXPECT_EQ(other.before.tensors[0].first, "mean");
  EXPECT_TRUE(at::equal(other.before.tensors[0].second, at::arange(4, at::kDouble)));
}

TEST_F(SnapshotFile, OfAnotherRunIsRefusedByTheDifference) {
  snapshots(configuration).save(state());
  json other = configuration;
  other["seed"] = 4;
  try {
    snapshots(other).load();
    FAIL() << "loaded";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("seed 3, now 4"), std::string::npos) << error.what();
  }
}

// Every byte matters: of a file with any one changed, or cut anywhere, nothing is used.
TEST_F(SnapshotFile, DamagedOneNeverCounts) {
  snapshots(configuration).save(state());
  const std::string whole = read_bytes(folder / "run.snapshot");
  ASSERT_GT(whole.size(), 200u);
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 1);
    write(bytes);
    // Blanks that pad the header and the case of a digit mean the same to a reader of JSON: then the state is the same.
    try {
      const std::optional<RunState> read = snapshots(configuration).load();
      ASSERT_TRUE(read) << i;
      EXPECT_EQ(read->stage, state().stage) << i;
      EXPECT_TRUE(at::equal(read->tensor("sum", {3, 4}), state().tensor("sum", {3, 4}))) << i;
    } catch (const std::runtime_error&) {
    }
  }
  for (size_t size = 0; size < whole.size(); ++size) {
    write(whole.substr(0, size));
    EXPECT_THROW(snapshots(configuration).load(), std::runtime_error) << size;
  }
}

TEST_F(SnapshotFile, ForeignFilesAreNone) {
  write("not a snapshot");
  EXPECT_THROW(snapshots(configuration).load(), std::runtime_error);
  write_safetensors((folder / "run.snapshot").string(), {{"sum", at::zeros({3, 4}, at::kDouble)}});
  EXPECT_THROW(snapshots(configuration).load(), std::runtime_error);
}

TEST_F(SnapshotFile, LeavesOfAKilledWriterGo) {
  std::ofstream(folder / "run.snapshot.tmp-1-0") << "half";
  std::ofstream(folder / "other.snapshot.tmp-1-0") << "not ours";
  EXPECT_FALSE(snapshots(configuration).load());
  EXPECT_FALSE(std::filesystem::exists(folder / "run.snapshot.tmp-1-0"));
  EXPECT_TRUE(std::filesystem::exists(folder / "other.snapshot.tmp-1-0"));
}

TEST_F(SnapshotFile, TroubleIsToldAndTheOldOneStays) {
  snapshots(configuration).save(state());
  std::string told;
  Snapshots nowhere(
      folder / "run.snapshot" / "below.snapshot", [&] { return configuration; }, 60,
      [&](const std::string& trouble) { told = trouble; });
  EXPECT_FALSE(nowhere.save(state()));
  EXPECT_NE(told.find("below.snapshot"), std::string::npos) << told;
  EXPECT_TRUE(snapshots(configuration).load());
}

// The seeds of the fuzz target: files, and (".state") what is behind a file's checksum, parted from a tensor by a zero.
TEST(SavedState, ReadsOrRefusesTheFuzzingSeeds) {
  int seeds = 0;
  for (const auto& entry : std::filesystem::directory_iterator(HESPER_SOURCE_DIR "/fuzz/corpus/state")) {
    const std::string bytes = read_bytes(entry.path()), name = entry.path().filename().string();
    const std::string message = error_of<std::runtime_error>([&] {
      if (name.ends_with(".state"))
        state_of(bytes.substr(0, bytes.find('\0')), {}, name);
      else
        parse_state(std::as_bytes(std::span(bytes)), name);
    });
    EXPECT_EQ(message.empty(), name.starts_with("good_")) << name << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    ++seeds;
  }
  EXPECT_GE(seeds, 10);
}

}  // namespace
}  // namespace hesper
