//! The nearest known name to a misspelt one.

/// The known name that `name` was most likely meant to be, if any is near enough.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody misspells a hundred letters, and the distance costs the product of the lengths.
    if name.len() > 100 {
        return None;
    }
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let allowed = (name.len() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added, left out or swapped with their neighbour. Case is free.
fn distance(name: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.to_lowercase().chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=candidate.len()).collect();
    for (i, &letter) in name.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &other) in candidate.iter().enumerate() {
            let mut cost = (last[j] + usize::from(letter != other)).min(last[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && letter == candidate[j - 1] && name[i - 1] == other;
            if swapped {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[candidate.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_misspelt_name_is_recognised() {
        let known = ["dataSources", "endpointRef", "assetRef"];
        assert_eq!(nearest("datasource", known), Some("dataSources"));
        assert_eq!(nearest("endpoitnRef", known), Some("endpointRef"));
        assert_eq!(nearest("nothing", known), None);
        assert_eq!(nearest("", known), None);
    }
}
