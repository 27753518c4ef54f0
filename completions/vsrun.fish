# Completion of vsrun(8) for fish(1). Made by `cargo xtask completions`: change
# xtask/src/completions/vsrun.fish.in or the options' definition instead.

function __vsrun_marked --description 'the mark before the command is there'
    contains -- -- (commandline -opc)
end

function __vsrun_given --description 'one of these options is there, and its value too'
    set -l words (commandline -opc)
    contains -- $words[-1] -u --user -p --pidfile -r --root -w --work-dir -m --manager -s --syslog -d --logdir; and set -e words[-1]
    for option in $argv
        contains -- $option $words; and return 0
    end
    return 1
end

function __vsrun_second --description 'the second value of one of these options is next'
    set -l words (commandline -opc)
    test (count $words) -gt 2; and not __vsrun_marked; and contains -- $words[-2] $argv
end

function __vsrun_second_of_any
    __vsrun_second -m --manager -d --logdir
end

function __vsrun_users --description 'users, and groups behind a colon'
    set -l user (string match -r '^[^:]+:' -- (commandline -ct))
    and for group in (__fish_complete_groups | string split -f 1 \t)
        echo $user$group
    end
    or __fish_complete_users
end

function __vsrun_command --description 'complete the server\'s command line'
    set -l words (commandline -opc)
    set -l mark (contains --index -- -- $words)
    set -e words[1..$mark]
    complete -C (string join -- ' ' (string escape -- $words) (commandline -ct))
end

complete -c vsrun -f
complete -c vsrun -n __vsrun_marked -a '(__vsrun_command)'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_second_of_any' -a -- -d 'The command follows'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -u --user' -s u -l user -r -f -a '(__vsrun_users)' -d 'Run the server as this user'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -p --pidfile' -s p -l pidfile -r -F -d 'Write the server\'s process id to this file'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -r --root' -s r -l root -r -f -a '(__fish_complete_directories)' -d 'Change the server\'s root directory'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -w --work-dir' -s w -l work-dir -r -f -a '(__fish_complete_directories)' -d 'Start the server in this directory'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -m --manager' -s m -l manager -r -F -d 'Stay resident, and restart the server when it dies'
complete -c vsrun -n '__vsrun_second -m --manager' -F
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -b --background' -s b -l background -d 'Run in the background'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -s --syslog -d --logdir' -s s -l syslog -r -f -d 'Send all output to syslog under this prefix'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -s --syslog -d --logdir' -s d -l logdir -r -f -a '(__fish_complete_directories)' -d 'Send all output to files in this directory'
complete -c vsrun -n '__vsrun_second -d --logdir' -f -a '12h 7d 4w 2m'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -h --help' -s h -l help -d 'Print help'
complete -c vsrun -n 'not __vsrun_marked; and not __vsrun_given -V --version' -s V -l version -d 'Print version'
