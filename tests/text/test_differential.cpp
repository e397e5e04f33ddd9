// Our ids against the Python packages', on the strings of differential_tokenizers.py.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "text/shared_data.h"
#include "text/tokenizer.h"

namespace hesper {
namespace {

TEST(Differential, ids_are_those_of_the_python_packages) {
  const char* given = std::getenv("HESPER_TOKENIZER_CASES");
  const char* python = std::getenv("HESPER_PYTHON");
  const TemporaryFolder folder;
  std::filesystem::path cases = folder / "cases.jsonl";
  if (given != nullptr) {
    cases = given;
  } else {
    if (python == nullptr) GTEST_SKIP() << "set HESPER_PYTHON or HESPER_TOKENIZER_CASES (differential_tokenizers.py)";
    HESPER_NEEDS("tokenizers/mistral-v0.1-tokenizer.json.gz");
    const std::string script = std::string(HESPER_SOURCE_DIR) + "/tests/text/differential_tokenizers.py";
    const std::string command = std::string("'") + python + "' '" + script + "' '" + shared_data("").string() + "' '" +
                                folder.path.string() + "'";
    const int status = std::system(command.c_str());
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "this Python knows another Unicode";
    ASSERT_EQ(status, 0) << command;
  }
  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers;
  std::map<std::string, int> wrong;
  std::istringstream lines(read_file(cases));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const nlohmann::json entry = nlohmann::json::parse(line);
    const auto name = entry.at("folder").get<std::string>();
    auto& tokenizer = tokenizers[name];
    if (!tokenizer) tokenizer = load_tokenizer(cases.parent_path() / name);
    const auto text = entry.at("text").get<std::string>();
    const auto expected = entry.at("ids").get<std::vector<int32_t>>();
    const std::vector<int32_t> ids = tokenizer->encode(text);
    if (ids != expected && ++wrong[name] <= 3) {
      ADD_FAILURE() << name << ": " << entry.at("text").dump(-1, ' ', true) << "\n  " << testing::PrintToString(ids)
                    << "\n  " << testing::PrintToString(expected);
    }
  }
  for (const auto& [name, n] : wrong) ADD_FAILURE() << name << ": " << n << " of the strings differ";
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace hesper
