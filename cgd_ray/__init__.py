"""Critique-Guided Distillation on Ray.

Eight nouns, in the order in which the platform makes them:

    prompt -> draft -> critique -> refinement -> example -> packed batch -> checkpoint -> score

Each is one record in `cgd_ray.records` and is made by one function:

    prompt        cgd_ray.prompts.sources.load_prompts
    draft         cgd_ray.sampling.draft.parse_draft
    critique      cgd_ray.teacher.critique.parse_critique
    refinement    cgd_ray.teacher.refinement.parse_refinement
    example       cgd_ray.examples.objectives.build_example
    packed batch  cgd_ray.examples.packing.pack
    checkpoint    cgd_ray.training.checkpoint.commit_checkpoint
    score         cgd_ray.evaluation.scoring.score_transcript

Source: Kapusuzoglu et al., "Critique-Guided Distillation for Robust Reasoning via Refinement",
ICML 2026, arXiv 2505.11628.
"""

__version__ = "0.1.0"
