"""What workers on diffusers share: loading, seeds, collectives, previews. Runs on ranks; imported by nothing light."""
