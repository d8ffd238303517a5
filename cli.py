from metahp_cli.main import main

main()
