# Prints what zsh would offer for the command line $1, one word a line: an
# interactive zsh on a terminal of its own gets the line and a tab. Its compadd
# writes the matches down instead of showing them.
zmodload zsh/zpty || exit 1

export OFFERED=$2
: >$OFFERED

zpty inner zsh -f -i
zpty -w inner 'fpath=($PWD/completions $fpath); autoload -Uz compinit; compinit -u -D; source tests/shells/record.zsh'
zpty -r inner said '*R''EADY*' || exit 1
zpty -w -n inner "$1"$'\t'
zpty -r inner said '*O''FFERED*' || exit 1
zpty -d inner
cat $OFFERED
