"""The main job: plan, measure the plan against what runs today, and keep what is proven to be better."""
