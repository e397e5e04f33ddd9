#pragma once
// What a check found: rows that a paper could cite, as a table and as JSON.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace hesper {

/// One comparison. error is relative: |a - b| over the norm named in `reason`.
struct CheckRow {
  std::string what, against;
  double error = 0;
  double bound = 0;    // largest error that rounding and truncation explain
  std::string reason;  // where the bound comes from
  bool passed = true;  // error <= bound; true where nothing is judged
  bool judged = true;  // false: shown for information (a step too large for a ReLU model, or lost in rounding)
};

struct CheckReport {
  std::vector<std::pair<std::string, std::string>> header;  // model, sha256, data, selection, precision, versions, ...
  std::vector<CheckRow> rows;
  std::vector<std::string> notes;
  bool passed() const;  // every judged row
};

/// Plain text with aligned columns.
std::string to_table(const CheckReport& report);
nlohmann::json to_json(const CheckReport& report);

}  // namespace hesper
