//! ReferenceGrants and label selectors: who may use what of another namespace.

use std::collections::BTreeMap;

use super::store::Objects;
use crate::intent::{LabelRequirement, LabelSelector, ObjectKind};

/// May an object of `from`'s kind and namespace refer to this one?
pub(crate) fn permitted(objects: &Objects, from: (ObjectKind, &str), to: (ObjectKind, &str, &str)) -> bool {
    let (from_kind, from_namespace) = from;
    let (to_kind, to_namespace, to_name) = to;
    from_namespace == to_namespace
        || objects.grants(to_namespace).any(|grant| {
            grant.from.iter().any(|from| {
                from.group == from_kind.group() && from.kind == from_kind.name() && from.namespace == from_namespace
            }) && grant.to.iter().any(|to| {
                to.group == to_kind.group()
                    && to.kind == to_kind.name()
                    && to.name.as_deref().is_none_or(|name| name == to_name)
            })
        })
}

/// Do labels match a selector? No labels are the same as an empty map.
pub(crate) fn selected(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |name: &String| labels.and_then(|labels| labels.get(name));
    selector.requirements.iter().all(|requirement| match requirement {
        LabelRequirement::In(name, values) => value(name).is_some_and(|value| values.contains(value)),
        LabelRequirement::NotIn(name, values) => value(name).is_none_or(|value| !values.contains(value)),
        LabelRequirement::Exists(name) => value(name).is_some(),
        LabelRequirement::DoesNotExist(name) => value(name).is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
        let red = || vec!["red".to_owned()];
        let team = || "team".to_owned();
        let other = || "other".to_owned();
        let cases = [
            (vec![], true, true),
            (vec![LabelRequirement::In(team(), red())], true, false),
            (vec![LabelRequirement::In(team(), vec![])], false, false),
            (vec![LabelRequirement::NotIn(team(), red())], false, true),
            (vec![LabelRequirement::NotIn(other(), red())], true, true),
            (vec![LabelRequirement::Exists(team())], true, false),
            (vec![LabelRequirement::DoesNotExist(team())], false, true),
            (vec![LabelRequirement::Exists(team()), LabelRequirement::Exists(other())], false, false),
        ];
        for (requirements, with, without) in cases {
            let selector = LabelSelector { requirements };
            assert_eq!(selected(&selector, Some(&labels)), with, "{selector:?}");
            assert_eq!(selected(&selector, None), without, "{selector:?} without labels");
        }
    }
}
