from velollm_core.cli import main

main()
