#pragma once
// A ranking (rank.h) as a table, a record and a picture.
//   NAME.rank.csv        a row a direction, the costliest first: place, value and error by every column
//   NAME.rank.pdf .png   place by actual cost against place by each other column
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "report/scatter.h"
#include "run/rank.h"

namespace hesper {

/// How a column is called in tables.
std::string title_of(const RankColumn& column);

/// Numbers of the directions, the first place first.
std::vector<int64_t> order_of(const RankColumn& column);

/// ranking[0] is the actual cost; names: one a direction.
void write_rank_csv(std::ostream& out, const std::vector<std::string>& names, const std::vector<RankColumn>& ranking);
/// Spearman correlations of every column with the actual and the predicted cost, and all values, errors and places.
nlohmann::json rank_json(const std::vector<RankColumn>& ranking);
ScatterPlot rank_picture(const std::string& title, const std::vector<RankColumn>& ranking);

}  // namespace hesper
