"""Who asks for which nodes."""

from cgd_ray.placement import label_selector, node_labels

RAYS_OWN = {"ray.io/node-id": "ab12", "ray.io/node-group": "head"}


def test_nothing_is_asked_for_where_no_node_carries_a_label_of_ours() -> None:
    assert label_selector("sampler", []) is None
    assert label_selector("sampler", [{}, RAYS_OWN]) is None


def test_a_labelled_head_is_enough_to_ask_for_nodes_that_are_yet_to_come() -> None:
    nodes = [RAYS_OWN | node_labels("head"), RAYS_OWN]
    assert label_selector("sampler", nodes) == {"cgd-sampler": "true"}
    assert label_selector("teacher", nodes) == {"cgd-teacher": "true"}


def test_a_node_can_have_several_roles() -> None:
    labels = node_labels("sampler", "trainer")
    for role in ("sampler", "trainer"):
        wanted = label_selector(role, [labels])
        assert wanted and wanted.items() <= labels.items()
    wanted = label_selector("teacher", [labels])
    assert wanted and not wanted.items() <= labels.items()
